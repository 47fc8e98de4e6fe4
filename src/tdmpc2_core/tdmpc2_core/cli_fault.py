"""Sub-command of ``tdmpc2`` that injects a fault: `fault`. What sends it is tdmpc2_ros, where ROS 2 is."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from tdmpc2_core.errors import UserError, add_command


def _fault(args: argparse.Namespace) -> None:
    from tdmpc2_core.robots.faults import FAULTS, read_request

    if args.component is None:
        for name, effects in FAULTS.items():
            print("\n".join(f"{name:13}{target:9}{effect}" for target, effect in effects.items()))
        return
    if args.fault is None:
        raise UserError(f"{args.component}: name a fault; tdmpc2 fault lists them")
    request = read_request(args.component, args.fault, args.size)
    try:
        sender = importlib.import_module("tdmpc2_ros.fault.send")
    except ModuleNotFoundError as missing:
        raise UserError(f"fault: {missing.name} is missing; source ROS 2 and this workspace first") from None
    print(sender.send(request, args.node, args.namespace))


def add_fault(commands: Any, name: str) -> None:
    """`tdmpc2 fault`."""
    summary = "inject a fault into a sensor, a drive, the clock or a node that runs; without words, list them"
    example = "tdmpc2 fault imu delayed --size 0.1"
    option = add_command(commands, name, _fault, summary, example).add_argument
    option(
        "component",
        nargs="?",
        help="joints, imu, command, actuators, clock, planner, simulator, supervisor; of one joint: "
        "joints/FL_hip_joint",
    )
    option(
        "fault", nargs="?", help="ok ends it; off, stuck, garbage, wrong, slow, delayed, intermittent, ..."
    )
    option("--size", type=float, metavar="X", help="s, rad or share, instead of the fault's own")
    option("--node", default="", metavar="NAME", help="that takes it (default: a relay, then the simulation)")
    option("--namespace", default="", metavar="NS", help="of one of several robots")
