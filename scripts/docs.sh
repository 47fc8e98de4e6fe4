#!/usr/bin/env bash
# The documentation as a site, with search and the reference of the Python API.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/docs.sh [FOLDER]

Builds the site of docs/ into FOLDER (default: site), and refuses broken links, anchors and references. Makes the
environment .venv where needed.

Example:
  scripts/docs.sh && python3 -m http.server --directory site
TEXT
}

if [[ $# -gt 0 && ( "$1" = -h || "$1" = --help ) ]]; then
  usage
  exit 0
fi
if [[ $# -gt 1 || "${1:-}" = -* ]]; then
  printf "docs: unknown argument '%s'; scripts/docs.sh --help shows the call\n" "${2:-$1}" >&2
  exit 2
fi

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
site="$(realpath -m -- "${1:-$root/site}")"
venv="$(realpath -m -- "${TDMPC2_VENV:-$root/.venv}")"
export TDMPC2_VENV="$venv"
"$root/scripts/setup.sh" --docs
cd "$root"
exec "$venv/bin/python" -m mkdocs build --quiet --strict --site-dir "$site"
