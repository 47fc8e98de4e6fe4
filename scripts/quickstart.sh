#!/usr/bin/env bash
# A robot under its learned world model, in simulation, over real ROS 2, on a machine that has only Python.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
models="$root/src/tdmpc2_core/tdmpc2_core/robots/models"
robots=()
for file in "$models"/*/embodiment.yaml; do
  if [[ -f "$file" ]]; then robots+=("$(basename "$(dirname "$file")")"); fi
done

usage() {
  cat <<TEXT
usage: scripts/quickstart.sh ROBOT [options]

Starts simulation and planner as separate ROS 2 processes, commands the robot through a short course and prints a table.
The first call makes the environment .venv (scripts/setup.sh --help); later calls start at once.

ROBOT: ${robots[*]}

  --seconds S        length of the course (default: 30)
  --drive            no course: the robot stands until the terminal's keys, or a gamepad, drive it
  --gamepad DEVICE   of --drive: joystick device (default: the first /dev/input/js* that there is)
  --seed N           seed of noise, start and planner (default: 0)
  --out DIR          where results and logs go (default: runs/quickstart/ROBOT; ROBOT-2, ... where that
                     holds results)
  --model PATH       checkpoint bundle instead of the one that comes with the robot
  --planner KIND     bundle (default), mppi, or policy: search or policy prior alone
  --deadline-ms MS   search time per decision
  --robots N         as many of them, each in a namespace and with a command of its own (default: 1)
  --real-time        simulated time does not wait for a planner that this machine runs too slowly
  --randomise        draws friction, mass and gains from the seed
  --record DIR       also writes a rosbag2 into this new folder
  --view             opens a window
  --web              shows robot and plan in a browser
  --no-video         no film and no picture

Exit code: 0 the robot stayed up and followed, 1 it did not, 2 a mistake in the call.

Example:
  scripts/quickstart.sh ${robots[0]} --seconds 30 --seed 1
TEXT
}

for argument in "$@"; do
  if [[ "$argument" = -h || "$argument" = --help ]]; then
    usage
    exit 0
  fi
done
if [[ $# -eq 0 ]]; then
  usage >&2
  exit 2
fi
robot="${robots[0]}" value=
for argument in "$@"; do
  if [[ -n "$value" ]]; then
    value=
  elif [[ "$argument" =~ ^--(seconds|seed|out|output|model|planner|deadline-ms|robots|record|gamepad)$ ]]; then
    value=follows
  elif [[ "$argument" != -* ]]; then
    robot="$argument"
  fi
done
if [[ " ${robots[*]} " != *" $robot "* && ! -e "$robot" ]]; then # known before minutes of set-up
  near="$(python3 -c 'import difflib, sys
for near in difflib.get_close_matches(sys.argv[1], sys.argv[2:], n=1): print(f" (did you mean {near!r}?)")' \
    "$robot" "${robots[@]}" 2>/dev/null || true)"
  printf "quickstart: unknown robot '%s'%s; known: %s\n" "$robot" "$near" "${robots[*]}" >&2
  exit 2
fi

venv="$(realpath -m -- "${TDMPC2_VENV:-$root/.venv}")"
export TDMPC2_VENV="$venv"
parts=()
if [[ " $* " == *" --web "* ]]; then parts+=(--web); fi
"$root/scripts/setup.sh" "${parts[@]}"
# shellcheck disable=SC1091  # written by setup.sh
source "$venv/env.sh"
exec "$VIRTUAL_ENV/bin/python" -m tdmpc2_ros.quickstart "$@"
