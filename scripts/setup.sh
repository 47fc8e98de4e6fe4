#!/usr/bin/env bash
# Makes the Python environment that quickstart.sh and test.sh use: torch, MuJoCo, ROS 2 Jazzy from wheels, the packages.
# A call that finds everything in place does nothing; one that was interrupted is completed by the next.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/setup.sh [--test] [--msgs] [--docs] [--web]

Makes or completes the environment .venv in the root of the repository, on a machine without ROS 2.

  --test   also what scripts/test.sh needs: pytest, ruff, colcon
  --msgs   also builds tdmpc2_msgs (needs a C++ compiler and the Python headers)
  --docs   also what scripts/docs.sh needs: mkdocs
  --web    also what shows a robot in a browser: viser

Variables:
  TDMPC2_VENV         folder of the environment instead of .venv
  TDMPC2_PYTHON       interpreter to use (3.11 to 3.13) instead of the first suitable one found
  TDMPC2_TORCH_INDEX  extra package index for torch alone, instead of the choice below; https://pypi.org/simple has the
                      build with CUDA

On a machine without an NVIDIA GPU torch is taken without CUDA, about 4 GB smaller, where pip's own configuration or
https://download.pytorch.org/whl/cpu offers it.

Example:
  scripts/setup.sh && source .venv/env.sh && tdmpc2 --help
TEXT
}

say() { printf '[setup] %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$1" >&2; exit "${2:-2}"; }

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
requirements="$root/scripts/requirements"
with_test=false
with_msgs=false
with_docs=false
with_web=false
for argument in "$@"; do
  case "$argument" in
    --test) with_test=true ;;
    --msgs) with_msgs=true ;;
    --docs) with_docs=true ;;
    --web) with_web=true ;;
    -h | --help) usage; exit 0 ;;
    *) fail "unknown option '$argument'; scripts/setup.sh --help lists the options" ;;
  esac
done

venv="$(realpath -m -- "${TDMPC2_VENV:-$root/.venv}")"
python="$venv/bin/python"
state="$venv/.tdmpc2"
cpu_index=https://download.pytorch.org/whl/cpu
log="$state/setup.log"

# ---- which parts are missing: each has a stamp with the hash of everything that it is made from ----

digest() { # digest TEXT FILE...: one hash over the text and the files
  local text="$1"
  shift
  { printf '%s\n' "$text"; sha256sum -- "$@" | cut -d' ' -f1; } | sha256sum | cut -d' ' -f1
}

packages=("$root/src/tdmpc2_core" "$root/src/tdmpc2_ros" "$root/src/tdmpc2_bringup")
metadata=()
for package in "${packages[@]}"; do
  for name in setup.py setup.cfg package.xml pyproject.toml; do
    if [[ -f "$package/$name" ]]; then metadata+=("$package/$name"); fi
  done
done
mapfile -t interfaces < <(find "$root/src/tdmpc2_msgs" -type f | sort)

declare -A wanted
wanted[base]="$(digest "$venv" "$requirements"/{torch,core,ros,constraints}.txt)"
wanted[packages]="$(digest "${wanted[base]} $root" "${BASH_SOURCE[0]}" "${metadata[@]}")"
wanted[build]="$(digest "${wanted[base]}" "$requirements/build.txt" "$root/scripts/mend_cmake_exports.py")"
wanted[test]="$(digest "${wanted[base]}" "$requirements/test.txt")"
wanted[web]="$(digest "${wanted[base]}" "$requirements/web.txt")"
wanted[docs]="$(digest "${wanted[base]}" "$requirements/docs.txt")"
wanted[msgs]="$(digest "${wanted[build]} $root" "${interfaces[@]}")"

parts=(base packages)
if $with_test || $with_msgs; then parts+=(build); fi
if $with_test; then parts+=(test); fi
if $with_test || $with_web; then parts+=(web); fi
if $with_docs; then parts+=(docs); fi
if $with_msgs; then parts+=(msgs); fi

missing() { # missing PART: its stamp is absent or of another state of the inputs
  [[ ! -x "$python" || ! -f "$state/$1.stamp" || "$(<"$state/$1.stamp")" != "${wanted[$1]}" ]]
}
any_missing() {
  local part
  for part in "${parts[@]}"; do if missing "$part"; then return 0; fi; done
  return 1
}
any_missing || exit 0

# ---- the interpreter ----

find_python() {
  local candidate found="" candidates=(python3 python3.12 python3.13 python3.11)
  if [[ -n "${TDMPC2_PYTHON:-}" ]]; then candidates=("$TDMPC2_PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    command -v "$candidate" >/dev/null || continue
    "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue
    found="$candidate"
    if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  if [[ -n "$found" ]]; then
    fail "$found has no venv module: install it (Debian and Ubuntu: apt install python3-venv) and start again"
  fi
  fail "Python 3.11, 3.12 or 3.13 is needed and ${TDMPC2_PYTHON:-python3} is none of them: install one or name it in TDMPC2_PYTHON"
}

[[ "$(uname -sm)" = "Linux x86_64" ]] ||
  fail "the ROS 2 wheels exist for x86-64 Linux only and this is $(uname -sm): install ROS 2 and build with colcon, see CONTRIBUTING.md"
if $with_msgs; then
  command -v c++ >/dev/null || fail "tdmpc2_msgs needs a C++ compiler: install one (Debian and Ubuntu: apt install g++)"
fi
made_here=false # only an environment that this script made is ever emptied
if [[ -f "$state/made-here" || ! -e "$venv" || (-d "$venv" && -z "$(ls -A "$venv")") ]]; then
  made_here=true
elif [[ ! -f "$venv/pyvenv.cfg" ]]; then
  fail "$venv exists and is not a Python environment: name another folder in TDMPC2_VENV"
fi
base_python="$(find_python)"
mkdir -p "$state" 2>/dev/null && [[ -w "$state" ]] || fail "cannot write to $venv: name another folder in TDMPC2_VENV"
if $made_here; then : >"$state/made-here"; fi

exec 9>"$state/lock"
if ! flock --nonblock 9; then
  say "waiting for another set-up of $venv"
  flock 9
  any_missing || exit 0
fi

# ---- make what is missing ----

has_gpu() { nvidia-smi -L >/dev/null 2>&1; }

start=$SECONDS
: >"$log"

# tenths of a GB that each part takes, measured with du on x86-64 without CUDA
declare -A takes=([base]=15 [packages]=0 [build]=1 [test]=6 [web]=1 [docs]=1 [msgs]=1)
tenths=0
for part in "${parts[@]}"; do
  if missing "$part"; then tenths=$((tenths + takes[$part])); fi
done
free="$(df -Pk "$venv" | awk 'NR == 2 { print int($4 / 100000) }')" # tenths of a GB
if ((tenths > 0)); then
  cuda=""
  if missing base && { has_gpu || [[ -n "${TDMPC2_TORCH_INDEX:-}" ]]; }; then cuda=", 4 GB more where torch brings CUDA"; fi
  say "takes about $((tenths / 10)).$((tenths % 10)) GB in $venv$cuda; $((free / 10)).$((free % 10)) GB are free"
fi
if ((free < tenths)) && missing base && [[ ! -f "$venv/env.sh" ]]; then
  fail "$venv needs $((tenths / 10)).$((tenths % 10)) GB and $((free / 10)).$((free % 10)) GB are free: make room or name another folder in TDMPC2_VENV"
fi

unset PYTHONPATH PYTHONHOME _ROS_WHEELS_BOOTSTRAP_COMPLETE
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off PIP_REQUIRE_VIRTUALENV=1

every="${TDMPC2_PROGRESS:-15}" # s between two lines about a step that is under way
report() { # report PID: while that process lives, how long the step has taken and what it does
  local started=$SECONDS line # a sleep that outlives this function must not hold the terminal, hence its redirection
  while sleep "$every" >/dev/null 2>&1 && kill -0 "$1" 2>/dev/null; do
    line="$(grep -E '^ *(Downloading|Collecting|Using cached|Installing|Building|Starting|Finished)' "$log" | tail -n 1)" || true
    say "  $((SECONDS - started)) s, $(du -sm "$venv" 2>/dev/null | cut -f1) MB in the environment: $(cut -c1-80 <<<"${line#"${line%%[! ]*}"}")"
  done
}
reporter=""
stop_report() {
  if [[ -n "$reporter" ]]; then kill "$reporter" 2>/dev/null || true; fi
  reporter=""
}
trap stop_report EXIT

logged() { # logged COMMAND...: its output goes to the log, progress to the terminal; returns its exit code
  local code=0
  report "$$" 9>&- &
  reporter=$!
  "$@" >>"$log" 2>&1 </dev/null || code=$?
  stop_report
  return "$code"
}
quietly() { # quietly WHAT COMMAND...: the end of the log is shown when the command fails
  local what="$1"
  shift
  if ! logged "$@"; then
    tail -n 15 "$log" >&2
    fail "$what failed; the whole output is in $log" 1
  fi
}
pip_command() { "$python" -m pip install --constraint "$requirements/constraints.txt" "$@"; }
pip_install() { quietly "pip install" pip_command "$@"; }
stamp() { printf '%s' "${wanted[$1]}" >"$state/$1.stamp"; }

make_venv() {
  if [[ -x "$python" ]] && "$python" -m pip --version >/dev/null 2>&1; then return; fi
  $made_here || fail "$venv has no pip: install pip there or name another folder in TDMPC2_VENV"
  find "$venv" -mindepth 1 -maxdepth 1 ! -path "$state" -exec rm -rf -- {} +
  quietly "making the environment" "$base_python" -m venv "$venv"
}

forget_half_installed() { # pip writes RECORD last: without it, it takes a package for installed whose files are not all there
  local info
  for info in "$venv"/lib/python3*/site-packages/*.dist-info; do
    if [[ -d "$info" && ! -f "$info/RECORD" ]]; then rm -rf -- "$info"; fi
  done
}

make_torch() {
  local version
  version="$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$requirements/torch.txt")"
  if [[ -n "${TDMPC2_TORCH_INDEX:-}" ]]; then
    say "torch, from $TDMPC2_TORCH_INDEX too"
    pip_install --extra-index-url "$TDMPC2_TORCH_INDEX" -r "$requirements/torch.txt"
  elif has_gpu; then
    say "torch for the NVIDIA GPU of this machine"
    pip_install -r "$requirements/torch.txt"
  else
    say "torch without CUDA: this machine has no NVIDIA GPU"
    logged pip_command "torch==$version+cpu" ||
      logged pip_command --retries 1 --timeout 15 --extra-index-url "$cpu_index" "torch==$version+cpu" || {
      say "torch with CUDA, 4 GB more: neither pip's configuration nor $cpu_index offers one without"
      pip_install -r "$requirements/torch.txt"
    }
  fi
}

make_base() {
  make_venv
  forget_half_installed
  say "$("$python" --version) in $venv"
  make_torch
  say "ROS 2 Jazzy, MuJoCo and the rest"
  pip_install -r "$requirements/core.txt" -r "$requirements/ros.txt"
}

make_packages() {
  say "tdmpc2_core, tdmpc2_ros, tdmpc2_bringup"
  # --no-build-isolation: setuptools is pinned in core.txt; --use-pep517: a package without pyproject.toml the same way
  local editable=() package
  for package in "${packages[@]}"; do editable+=(-e "$package"); done
  pip_install --no-deps --no-build-isolation --use-pep517 "${editable[@]}"
  # an editable install leaves out share/: links there make get_package_share_directory work as after colcon build
  local share="$venv/share" name
  mkdir -p "$share/ament_index/resource_index/packages"
  for package in "${packages[@]}"; do
    name="$(basename "$package")"
    ln -sfn "$package" "$share/$name"
    : >"$share/ament_index/resource_index/packages/$name"
  done
}

make_build() {
  say "colcon and the message generators"
  pip_install -r "$requirements/build.txt"
  quietly "mending the CMake exports" "$python" "$root/scripts/mend_cmake_exports.py"
}

make_test() {
  say "test tools"
  pip_install -r "$requirements/test.txt"
}

make_web() {
  say "viser"
  pip_install -r "$requirements/web.txt"
}

make_docs() {
  say "mkdocs"
  pip_install -r "$requirements/docs.txt"
}

make_msgs() {
  say "tdmpc2_msgs"
  rm -rf -- "$venv/colcon/build/tdmpc2_msgs" # CMake refuses a build folder that has moved
  quietly "colcon build" "$root/scripts/colcon_build.sh" tdmpc2_msgs
}

write_env() {
  local msgs="$venv/colcon/install/tdmpc2_msgs" modules
  modules="$msgs/lib/python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')/site-packages"
  cat >"$venv/env.sh.part" <<TEXT
# Written by scripts/setup.sh. Use: source $venv/env.sh
if [ -n "\${ROS_DISTRO:-}" ]; then # another ROS 2 is sourced; its libraries and these do not load together
  unset LD_LIBRARY_PATH ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION
fi
unset PYTHONPATH PYTHONHOME COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
export VIRTUAL_ENV='$venv'
case ":\$PATH:" in *":$venv/bin:"*) ;; *) export PATH="$venv/bin:\$PATH" ;; esac
export AMENT_PREFIX_PATH='$venv'
export CMAKE_PREFIX_PATH='$venv'
if [ -f '$msgs/share/tdmpc2_msgs/package.xml' ]; then
  export AMENT_PREFIX_PATH='$msgs:$venv'
  export LD_LIBRARY_PATH="$msgs/lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
  export PYTHONPATH='$modules'
fi
export RMW_IMPLEMENTATION=rmw_fastrtps_cpp # the one the wheels bring
export ROS_AUTOMATIC_DISCOVERY_RANGE="\${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}" # no robot on the network is commanded
export OMP_WAIT_POLICY=PASSIVE # idle threads sleep; spinning ones take the cores from the simulation
export OMP_NUM_THREADS="\${OMP_NUM_THREADS:-1}" # several processes share the cores; training and planner set their own
export OPENBLAS_NUM_THREADS="\${OPENBLAS_NUM_THREADS:-1}"
if [ -n "\${BASH_VERSION:-}" ]; then
  case "\$-" in # completion of tdmpc2, for a terminal alone
    *i*) eval "\$('$venv/bin/python' -m argcomplete.scripts.register_python_argcomplete tdmpc2)" ;;
  esac
fi
TEXT
  mv "$venv/env.sh.part" "$venv/env.sh"
}

if [[ -n "${ROS_DISTRO:-}" ]]; then
  say "ROS 2 $ROS_DISTRO is sourced; this environment brings its own (to use yours instead: CONTRIBUTING.md)"
fi
for part in "${parts[@]}"; do
  if missing "$part"; then
    rm -f "$state/$part.stamp"
    "make_$part"
    if [[ "$part" = packages ]]; then write_env; fi
    stamp "$part"
  fi
done
say "ready after $((SECONDS - start)) s"
