"""The commands that bring checkpoints in and out: ``tdmpc2 import`` and ``tdmpc2 export``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc2_core.errors import UserError

if TYPE_CHECKING:
    from tdmpc2_core.checkpoint.bundle import Bundle

FORMATS = ("official", "onnx", "aoti")


def add_commands(commands: Any) -> None:
    """Add both to the sub-commands of ``tdmpc2`` (what `ArgumentParser.add_subparsers` returned)."""
    _add_import(commands)
    _add_export(commands)


def _add_import(commands: Any) -> None:
    command = commands.add_parser(
        "import",
        help="make a bundle from an official TD-MPC2 checkpoint (.pt)",
        epilog="example: tdmpc2 import walker-walk-1.pt --task walker-walk --out bundles/walker",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("file", type=Path, metavar="FILE", help="checkpoint, any published layout")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="bundle to write")
    command.add_argument(
        "--task", help="published name (walker-walk, mw-push, mt30, mt80); decides discount and period"
    )
    command.add_argument(
        "--action-dims",
        type=int,
        nargs="+",
        default=(),
        metavar="N",
        help="per task, of an unpublished task set",
    )
    command.add_argument(
        "--episode-length", type=_positive, metavar="N", help="decisions; decides the discount (default 500)"
    )
    command.add_argument("--discount", type=_share, help="per decision, instead of the episode length's")
    command.add_argument("--control-period", type=_seconds, metavar="S", help="s per decision")
    command.add_argument("--planner", default="large", help="preset to plan with (default large)")
    command.set_defaults(run=_import)


def _add_export(commands: Any) -> None:
    command = commands.add_parser(
        "export",
        help="write a bundle for other programs",
        epilog="example: tdmpc2 export quadruped --format official --out quadruped.pt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("bundle", type=Path, help="checkpoint bundle")
    command.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="official: TD-MPC2's own .pt; onnx: the policy prior; aoti: the compiled planner, .pt2",
    )
    command.add_argument("--out", type=Path, required=True, metavar="FILE")
    command.add_argument("--robots", type=_positive, default=1, help="aoti: robots planned for together")
    command.add_argument("--device", default="cpu", help="aoti: device to compile for (default cpu)")
    command.set_defaults(run=_export)


def _import(args: argparse.Namespace) -> None:
    from tdmpc2_core.checkpoint.bundle import save_bundle
    from tdmpc2_core.checkpoint.official_import import ImportOptions, import_official

    options = ImportOptions(
        task=args.task,
        action_dims=tuple(args.action_dims),
        episode_length=args.episode_length,
        discount=args.discount,
        control_period=args.control_period,
        planner=args.planner,
    )
    bundle, found = import_official(args.file, options)
    save_bundle(args.out, bundle)
    model = found.model.config
    print(
        f"{args.out}: {found.model.num_parameters:,} parameters from a file of the {found.layout} layout; "
        f"observation {model.obs_dim}, action {model.action_dim}, latent {model.latent_dim}"
    )
    discounts = sorted(set(bundle.task_discounts)) or [bundle.discount]
    tasks = f"{model.num_tasks} tasks, " if model.num_tasks else ""
    print(f"{tasks}discount {', '.join(f'{value:g}' for value in discounts)}")
    known = args.task or args.episode_length or args.discount or bundle.tasks
    if not known:
        print(
            "no task was named: the discount is that of episodes of 500 decisions (--task, --episode-length)"
        )


def _export(args: argparse.Namespace) -> None:
    from tdmpc2_core.checkpoint.bundle import load_bundle

    bundle = load_bundle(args.bundle)
    {"official": _official, "onnx": _onnx, "aoti": _aoti}[args.format](args, bundle)


def _onnx(args: argparse.Namespace, bundle: Bundle) -> None:
    from tdmpc2_core.export.onnx_policy import export_onnx

    export_onnx(bundle.build_model(), args.out)
    print(
        f"{args.out}: inputs obs{', task' if bundle.model_config.num_tasks else ''}; outputs action, log_std"
    )


def _aoti(args: argparse.Namespace, bundle: Bundle) -> None:
    from tdmpc2_core.export.aoti import export_aoti

    try:
        model = bundle.build_model().to(args.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {args.device!r} cannot be used: {str(error).splitlines()[0]}") from None
    export_aoti(model, bundle.planner, bundle.task_discounts or bundle.discount, args.out, args.robots)
    plan = bundle.planner
    print(f"{args.out}: {plan.num_samples} samples, {plan.iterations} iterations, {args.robots} robots")


def _official(args: argparse.Namespace, bundle: Bundle) -> None:
    from tdmpc2_core.checkpoint.official_export import export_official, official_settings

    model = bundle.build_model()
    export_official(model, args.out)
    settings = " ".join(shlex.quote(f"{name}={value}") for name, value in official_settings(model).items())
    print(f"{args.out}: load it in the official code with {settings}")
    if model.config.normalise_obs:
        print("observation statistics were folded into the first encoder layer")


def _positive(text: str) -> int:
    return int(_number(text, 1.0, float("inf")))


def _share(text: str) -> float:
    return _number(text, 0.0, 1.0)


def _seconds(text: str) -> float:
    return _number(text, 0.0, float("inf"))


def _number(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high or value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
    return value
