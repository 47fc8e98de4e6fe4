#!/usr/bin/env bash
# colcon build on the environment that setup.sh makes; called by setup.sh and test.sh.
set -euo pipefail

if [[ $# -gt 0 && ( "$1" = -h || "$1" = --help ) ]]; then
  cat <<'TEXT'
usage: scripts/colcon_build.sh [PACKAGE...]

Builds the named packages, or all in src/, below .venv/colcon. Needs scripts/setup.sh --test or --msgs before it.

Example:
  scripts/colcon_build.sh tdmpc2_msgs
TEXT
  exit 0
fi

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$(realpath -m -- "${TDMPC2_VENV:-$root/.venv}")"
select=()
if [[ $# -gt 0 ]]; then select=(--packages-select "$@"); fi

# shellcheck disable=SC1091  # written by setup.sh
source "$venv/env.sh"
# the result of an earlier build is not a prefix to build on
unset PYTHONPATH LD_LIBRARY_PATH
export AMENT_PREFIX_PATH="$venv"

mkdir -p "$venv/colcon"
cd "$venv/colcon"
# --log-base is an option of colcon, not of its verb; -m: the first line of bin/colcon is wrong once the folder has moved
exec "$venv/bin/python" -m colcon --log-base log build --base-paths "$root/src" --build-base build --install-base install \
  --event-handlers console_direct- console_stderr+ "${select[@]}" \
  --cmake-args -G Ninja -DPython3_EXECUTABLE="$venv/bin/python" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF
