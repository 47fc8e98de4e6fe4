#!/usr/bin/env bash
# Runs a command in the environment that scripts/setup.sh made.
set -euo pipefail

if [[ $# -eq 0 || "$1" = -h || "$1" = --help ]]; then
  cat <<'TEXT'
usage: docker/entrypoint.sh COMMAND [ARGUMENT...]

Example:
  docker/entrypoint.sh tdmpc2 --help
TEXT
  exit 0
fi

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck disable=SC1091  # written by setup.sh
source "$(realpath -m -- "${TDMPC2_VENV:-$root/.venv}")/env.sh"
exec "$@"
