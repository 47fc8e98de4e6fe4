#!/usr/bin/env bash
# Everything that continuous integration runs: set-up, lint, build of the four packages, tests.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/test.sh [PART...] [-- PYTEST-OPTION...]

Makes the environment .venv where needed and runs the parts named, or all of them in this order:

  lint      ruff check, ruff format --check, mypy, shellcheck, hadolint, schemas of compose, workflow, citation
  build     colcon build of the four packages, below .venv/colcon
  core      tests of tdmpc2_core
  ros       tests of tdmpc2_ros, with nodes as processes over DDS
  bringup   tests of tdmpc2_bringup, the messages, the packages and the workspace; implies build

Exit code: 0 all passed, otherwise that of the first part that failed; tests run as one pytest call, last.

Example:
  scripts/test.sh core -- -k mppi -x
TEXT
}

say() { printf '[test] %s\n' "$*"; }

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
parts=()
options=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --) shift; options=("$@"); break ;;
    lint | build | core | ros | bringup) parts+=("$1") ;;
    *) printf "test: unknown part '%s'; known: lint build core ros bringup\n" "$1" >&2; exit 2 ;;
  esac
  shift
done
if [[ ${#parts[@]} -eq 0 ]]; then parts=(lint build core ros bringup); fi

has_part() { [[ " ${parts[*]} " = *" $1 "* ]]; }

venv="$(realpath -m -- "${TDMPC2_VENV:-$root/.venv}")"
export TDMPC2_VENV="$venv"
compiler=true
command -v c++ >/dev/null || compiler=false
if $compiler; then
  "$root/scripts/setup.sh" --test --msgs --docs
else
  say "no C++ compiler: tdmpc2_msgs is not built and its tests are skipped"
  "$root/scripts/setup.sh" --test --docs
fi
# shellcheck disable=SC1091  # written by setup.sh
source "$venv/env.sh"
cd "$root"

if has_part lint; then
  python -m ruff check --quiet .
  python -m ruff format --check --quiet . || { say "scripts/test.sh lint: run .venv/bin/ruff format ."; exit 1; }
  python -m mypy --no-error-summary
  "$VIRTUAL_ENV/bin/shellcheck" scripts/*.sh docker/*.sh .ci/run
  "$VIRTUAL_ENV/bin/hadolint" --config docker/hadolint.yaml docker/Dockerfile.*
  schema() { "$VIRTUAL_ENV/bin/check-jsonschema" --quiet --builtin-schema "vendor.$1" "${@:2}"; }
  schema compose-spec docker/compose.yaml
  schema github-workflows .github/workflows/*.yml
  schema github-issue-forms .github/ISSUE_TEMPLATE/{bug,wish}.yml
  schema github-issue-config .github/ISSUE_TEMPLATE/config.yml
  schema citation-file-format CITATION.cff
  say "lint: ok"
fi

if has_part build || has_part bringup; then
  packages=(tdmpc2_core tdmpc2_ros tdmpc2_bringup)
  if $compiler; then packages+=(tdmpc2_msgs); fi
  build_log="$VIRTUAL_ENV/colcon/build.log"
  mkdir -p "$VIRTUAL_ENV/colcon"
  scripts/colcon_build.sh "${packages[@]}" >"$build_log" 2>&1 </dev/null || {
    tail -n 40 "$build_log" >&2
    say "build: failed, the whole output is in $build_log"
    exit 1
  }
  say "build: ${#packages[@]} packages ok"
fi

folders=()
for part in core ros bringup; do
  if has_part "$part"; then folders+=("src/tdmpc2_$part/test"); fi
done
if [[ ${#folders[@]} -gt 0 ]]; then
  exec python -m pytest -q "${folders[@]}" "${options[@]}" </dev/null
fi
