# PYTHON_ARGCOMPLETE_OK
"""The command line ``tdmpc2``; `COMMANDS` has its sub-commands."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import argcomplete

from tdmpc2_core import __version__
from tdmpc2_core.cli_data import add_bag, add_data, add_replay
from tdmpc2_core.cli_fault import add_fault
from tdmpc2_core.config import apply_overrides, field_help, field_names, load_yaml
from tdmpc2_core.errors import RAW, CommandLine, UserError, add_command, exit_code, natural, positive
from tdmpc2_core.files import check_writable, claimed, write_json

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.robots import Embodiment


FORMATS = ("official", "onnx", "bundle")
NOT_BETTER = 3
"""Exit code of a fine-tuning whose result was not written."""


def _add_import(commands: Any, name: str) -> None:
    example = "tdmpc2 import walker-walk-1.pt --task walker-walk --out bundles/walker"
    command = add_command(
        commands, name, _import, "make a bundle from an official TD-MPC2 checkpoint (.pt)", example
    )
    option = command.add_argument
    option("file", type=Path, metavar="FILE", help="checkpoint, any published layout")
    option("--out", type=Path, required=True, metavar="DIR", help="bundle to write")
    option("--task", help="published name (walker-walk, mw-push, mt30, mt80); decides discount and period")
    option(
        "--action-dims",
        type=int,
        nargs="+",
        default=(),
        metavar="N",
        help="per task, of an unpublished task set",
    )
    option(
        "--episode-length", type=natural, metavar="N", help="decisions; decides the discount (default 500)"
    )
    option("--discount", type=_share, help="per decision, instead of the episode length's")
    option("--control-period", type=positive, metavar="S", help="s per decision")
    option("--planner", default="large", help="preset to plan with (default large)")


def _add_export(commands: Any, name: str) -> None:
    example = "tdmpc2 export walker-walk --format official --out walker-walk.pt"
    option = add_command(commands, name, _export, "write a bundle for other programs", example).add_argument
    option("bundle", type=Path, help="checkpoint bundle")
    option(
        "--format",
        choices=FORMATS,
        required=True,
        help="official: TD-MPC2's own .pt; onnx: the policy prior; bundle: a bundle, as of one --robot",
    )
    option("--out", type=Path, required=True, metavar="FILE")
    _add_robot(option)


def _import(args: argparse.Namespace) -> None:
    from tdmpc2_core.checkpoint.bundle import save_bundle
    from tdmpc2_core.checkpoint.official_convert import ImportOptions, import_official

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
    from tdmpc2_core.agent import Agent

    agent = Agent.load(args.bundle, embodiment=_robot(args))
    {"official": _official, "onnx": _onnx, "bundle": _bundle}[args.format](args, agent)


def _bundle(args: argparse.Namespace, agent: Agent) -> None:
    agent.save(args.out)
    print(f"{args.out}: {agent.model.num_parameters:,} parameters")


def _onnx(args: argparse.Namespace, agent: Agent) -> None:
    from tdmpc2_core.export.onnx_policy import export_onnx

    export_onnx(agent.model, args.out)
    print(
        f"{args.out}: inputs obs{', task' if agent.model.config.num_tasks else ''}; outputs action, log_std"
    )


def _official(args: argparse.Namespace, agent: Agent) -> None:
    from tdmpc2_core.checkpoint.official_convert import export_official, official_settings

    model = agent.model
    export_official(model, args.out)
    settings = " ".join(shlex.quote(f"{name}={value}") for name, value in official_settings(model).items())
    print(f"{args.out}: load it in the official code with {settings}")
    if model.config.normalise_obs:
        print("observation statistics were folded into the first encoder layer")


def _add_robot(option: Callable[..., Any]) -> None:
    option("--robot", help="which one a bundle of several drives: a shipped name, robot folder or its YAML")


def _robot(args: argparse.Namespace) -> Embodiment | None:
    from tdmpc2_core.robots import Embodiment

    return Embodiment.load(args.robot) if args.robot else None


def _share(text: str) -> float:
    value = positive(text)
    if value > 1.0:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and at most 1, got {text!r}")
    return value


def _train(args: argparse.Namespace) -> None:
    from tdmpc2_core.train.online import OnlineTrainer
    from tdmpc2_core.train.run import TrainingRun, nothing_left, stored_settings
    from tdmpc2_core.train.train_config import TrainConfig, train_preset

    if args.resume:
        config = stored_settings(args.resume)
    elif args.config:
        config = load_yaml(TrainConfig, args.config)
    else:
        config = train_preset(args.preset, _given(args.settings, "robot"), _given(args.settings, "task"))
    config = apply_overrides(config, args.settings)
    with claimed(config.folder, f"out={config.folder}"):
        with nothing_left(config.folder):
            run = TrainingRun(config)
            trainer = OnlineTrainer(run)
        print(
            f"{run.folder}: {run.spec.name}, {run.agent.model.num_parameters:,} parameters, "
            f"step {run.progress.steps}"
        )
        trainer.train()


def _given(settings: Sequence[str], key: str) -> str | None:
    """Value of the last `key=value` among the settings; None without one."""
    return next((text[len(key) + 1 :] for text in reversed(settings) if text.startswith(f"{key}=")), None)


def _eval(args: argparse.Namespace) -> None:
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.envs.robot.film import write_film
    from tdmpc2_core.scoring.evaluation import evaluate_agent, evaluation_table
    from tdmpc2_core.scoring.watching import Progress, Recorder
    from tdmpc2_core.train.run import pick_device

    films = [path for path in (args.video, args.picture) if path]
    for path, option in ((args.json, "--json"), (args.video, "--video"), (args.picture, "--picture")):
        if path:
            check_writable(path, option)
    device = pick_device(args.device, "--device ")
    robot = _robot(args)
    agent = Agent.load(args.bundle, device=device, embodiment=robot, planner=args.planner, seed=args.seed)
    if films and (agent.embodiment is None or args.task):
        raise UserError("--video and --picture are of robots; leave them out for a benchmark task")
    progress, recorder = Progress(), Recorder()

    def spectator(step: int, steps: int, environments: Sequence[Any]) -> None:
        progress(step, steps, environments)
        if films:
            recorder(step, steps, environments)

    result = evaluate_agent(
        agent, args.seconds, args.episodes, args.seed, args.task, spectator, heading_hold=args.heading_hold
    )
    print(evaluation_table({args.planner or agent.planner_config.method: result}))
    if args.json:
        write_json(args.json, vars(result))
    if films:
        write_film(recorder.recording(), args.video, args.picture)
        print(f"film of the first robot: {', '.join(map(str, films))}")


def _watch(args: argparse.Namespace) -> None:
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.envs.robot.film import write_film
    from tdmpc2_core.scoring.watching import robot_of, watch_film, watch_window
    from tdmpc2_core.train.run import pick_device

    device = pick_device(args.device, "--device ")
    robot = _robot(args)
    agent = Agent.load(args.bundle, device=device, embodiment=robot, planner=args.planner, seed=args.seed)
    env = robot_of(agent, args.seed, args.command_values or ())
    if args.out is None and watch_window(agent, env, args.seconds):
        return
    out = args.out or Path("watch.mp4")
    check_writable(out, "--out")
    if args.out is None:
        print(f"no display here: a film goes to {out} instead")
    write_film(watch_film(agent, env, args.seconds or 20.0), out, None)
    print(out)


def _curves(args: argparse.Namespace) -> None:
    from tdmpc2_core.train.curves import draw_curves

    out = args.out or args.runs[0] / "curves.png"
    check_writable(out, "--out")
    print(f"{out}: {draw_curves(args.runs, out)} measures of {len(args.runs)} runs")


def _calibrate(args: argparse.Namespace) -> None:
    import torch

    from tdmpc2_core.agent import Agent
    from tdmpc2_core.calibration import calibrate
    from tdmpc2_core.train.run import pick_device

    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    agent = Agent.load(args.bundle, device=pick_device(args.device, "--device "), embodiment=_robot(args))
    if args.trust or args.trust_hours:
        _calibrate_trust(agent, args)
        return
    if args.rate is None:
        raise UserError("calibrate: give --rate, or --trust with good runs")
    found = calibrate(agent, args.rate, None if args.budget is None else 1e-3 * args.budget)
    print(found)
    if args.out:
        agent.fork(found.config).save(args.out)


def _calibrate_trust(agent: Agent, args: argparse.Namespace) -> None:
    from tdmpc2_core.checkpoint.bundle import weights_digest
    from tdmpc2_core.control.gate_fit import calibrate_trust
    from tdmpc2_core.control.gate_runs import recorded_runs, simulated_runs

    if args.out is None:
        raise UserError("calibrate: give --out, a folder for the bundle with its trust calibrated")
    if args.trust and args.trust_hours:
        raise UserError("calibrate: give --trust or --trust-hours, not both")
    runs = recorded_runs(agent, args.trust or ()) or list(
        simulated_runs(agent, args.trust_hours or 0.0, True)
    )
    weights = weights_digest(agent.model.state_dict())
    agent.trust = calibrate_trust(agent, runs, args.false_alarms, weights)
    agent.save(args.out)
    print(
        f"{args.out}: trust ends as in {args.false_alarms:g} of 1 h of good runs; "
        f"threshold from {float(agent.trust.hours[0]):.2f} h"
    )


def _info(args: argparse.Namespace) -> None:
    from tdmpc2_core.checkpoint.bundle import load_bundle
    from tdmpc2_core.checkpoint.page import bundle_facts, bundle_page

    bundle = load_bundle(args.bundle)
    print(json.dumps(bundle_facts(bundle), indent=2) if args.json else bundle_page(bundle))


def _import_urdf(args: argparse.Namespace) -> None:
    from tdmpc2_core.descriptions.from_urdf import import_urdf

    path = import_urdf(args.urdf, args.folder, args.fixed, lambda text: print(f"note: {text}"))
    command = ["tdmpc2", "student", f"robot={args.folder}", f"out=runs/{args.folder.name}"]
    print(f"{path}: review it, then: {shlex.join(command)}")


def _identify(args: argparse.Namespace) -> None:
    from tdmpc2_core.checkpoint.bundle import robot_files
    from tdmpc2_core.identification import (
        IdentifyConfig,
        check_new,
        identified_embodiment,
        identify,
        report_table,
        write_report,
        write_robot,
    )
    from tdmpc2_core.robots import Embodiment

    check_new(args.out)
    robot = Embodiment.load(args.embodiment)
    config = apply_overrides(IdentifyConfig(), args.settings)
    result = identify(robot, args.data, config, lambda text: print(text, file=sys.stderr))
    write_robot(args.out, identified_embodiment(robot, result), robot_files(robot))
    print(report_table(result))
    write_report(args.out, result)


def _add_identify(commands: Any, name: str) -> None:
    def defaults() -> Any:
        from tdmpc2_core.identification import IdentifyConfig

        return IdentifyConfig()

    summary = "fit friction, mass, gains, delay and motors of a robot model to recorded episodes"
    example = "tdmpc2 identify --embodiment quadruped --data episodes --out robots/measured"
    command = add_command(commands, name, _identify, summary, example)
    command.add_argument("--embodiment", required=True, help="shipped robot, robot folder or its YAML")
    command.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="STORE", help="folders of episodes, raw"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="robot folder to make")
    _with_settings(command, defaults)


def _add_train(commands: Any, name: str) -> None:
    def defaults() -> Any:
        from tdmpc2_core.train.train_config import TrainConfig

        return TrainConfig()

    train = add_command(
        commands,
        name,
        _train,
        "train online in simulation; continues a run that its folder already holds",
        "tdmpc2 train robot=quadruped out=runs/quadruped steps=150000 learner.batch_size=256",
        description="Train online in simulation. A run folder that already holds a checkpoint is continued.",
    )
    source = train.add_mutually_exclusive_group()
    source.add_argument(
        "--preset",
        choices=("robot", "dmcontrol", "paper"),
        help="starting point of the settings (default robot, or dmcontrol for a task)",
    )
    source.add_argument("--config", type=Path, help="YAML file with settings")
    source.add_argument(
        "--resume", type=Path, metavar="DIR", help="continue the run in DIR with its own settings"
    )
    _with_settings(train, defaults)


def _with_settings(parser: argparse.ArgumentParser, defaults: Callable[[], Any]) -> None:
    """`key=value` arguments, and their table in the help; `defaults` is called for it alone, as it may import
    torch."""
    words = parser.add_argument("settings", nargs="*", metavar="key=value", help="settings, see below")
    words.completer = lambda **_: [f"{key}=" for key in field_names(defaults())]  # type: ignore[attr-defined]
    parser.set_defaults(defaults=defaults)
    brief = parser.format_help
    parser.format_help = lambda: f"{brief()}\nsettings:\n{field_help(defaults())}\n"  # type: ignore[method-assign]


def _expert(args: argparse.Namespace) -> None:
    from tdmpc2_core.train.expert import ExpertRunConfig, ExpertTrainer
    from tdmpc2_core.train.run import nothing_left

    config = apply_overrides(ExpertRunConfig(), args.settings)
    with claimed(config.folder, f"out={config.folder}"):
        with nothing_left(config.folder):
            trainer = ExpertTrainer(config)
        trainer.train()


def _add_expert(commands: Any, name: str) -> None:
    def defaults() -> Any:
        from tdmpc2_core.train.expert import ExpertRunConfig

        return ExpertRunConfig()

    summary = "train a robot's expert by reinforcement on what only a simulator knows, or continue"
    example = "tdmpc2 expert robot=quadruped decisions=8000000"
    _with_settings(add_command(commands, name, _expert, summary, example), defaults)


def _student(args: argparse.Namespace) -> None:
    from tdmpc2_core.train.run import nothing_left
    from tdmpc2_core.train.student import StudentConfig, StudentTrainer

    config = apply_overrides(StudentConfig(), args.settings)
    with claimed(config.folder, f"out={config.folder}"):
        with nothing_left(config.folder):
            trainer = StudentTrainer(config)
        trainer.train()


def _add_student(commands: Any, name: str) -> None:
    def defaults() -> Any:
        from tdmpc2_core.train.student import StudentConfig

        return StudentConfig()

    summary = "train a robot's world model and prior from nothing, under an expert that is trained first"
    example = "tdmpc2 student robot=quadruped out=runs/quadruped"
    _with_settings(add_command(commands, name, _student, summary, example), defaults)


def _collect(args: argparse.Namespace) -> None:
    from tdmpc2_core.train.collect import CollectConfig, collect
    from tdmpc2_core.train.run import nothing_left

    config = apply_overrides(CollectConfig(), args.settings)
    with claimed(config.folder, f"out={config.folder}"), nothing_left(config.folder):
        print(f"{config.folder}: {collect(config):,} decisions")


def _add_collect(commands: Any, name: str) -> None:
    def defaults() -> Any:
        from tdmpc2_core.train.collect import CollectConfig

        return CollectConfig()

    summary = "record a simulated robot that a bundle drives, for `tdmpc2 pretrain`"
    example = "tdmpc2 collect robot=arm bundle=arm out=data/arm decisions=100000"
    _with_settings(add_command(commands, name, _collect, summary, example), defaults)


def _pretrain(args: argparse.Namespace) -> None:
    from tdmpc2_core.train.offline import OfflineTrainer, offline_preset
    from tdmpc2_core.train.run import nothing_left

    config = apply_overrides(offline_preset(args.preset), args.settings)
    with nothing_left(config.out):
        trainer = OfflineTrainer(config)
    print(
        f"{config.out}: {', '.join(trainer.data.tasks)}; {trainer.agent.model.num_parameters:,} parameters, "
        f"{sum(map(len, trainer.data.sources)):,} decisions, update {trainer.updates}"
    )
    trainer.train()


def _add_pretrain(commands: Any, name: str) -> None:
    def defaults() -> Any:
        from tdmpc2_core.train.offline import OfflineConfig

        return OfflineConfig()

    pretrain = add_command(
        commands,
        name,
        _pretrain,
        "train on recorded episodes of one or several tasks, without an environment",
        "tdmpc2 pretrain data=data/mt30 tasks=mt30 model_size=19 learner.batch_size=1024 out=runs/mt30",
        description="Train one model on recorded episodes of one or several tasks: the published mt30\n"
        "and mt80, other folders of chunk_*.pt, or runs of `tdmpc2 collect` or `train`; robots are\n"
        "bodies of one bundle. In several processes:\n"
        "torchrun --nproc-per-node 8 -m tdmpc2_core.cli pretrain ...",
    )
    pretrain.add_argument(
        "--preset",
        choices=("paper", "robots"),
        default="paper",
        help="starting point of the settings; robots: imitation of what `tdmpc2 collect` recorded",
    )
    _with_settings(pretrain, defaults)


def _finetune(args: argparse.Namespace) -> int:
    from tdmpc2_core.train.finetune import FineTuneConfig, fine_tune
    from tdmpc2_core.train.finetune_report import ProgressBar, read_table, shown

    # `--data` takes all words up to the next option, settings among them
    data = [word for word in args.data if "=" not in word or Path(word).exists()]
    flags = {"mode": args.mode, "mix_sim": args.mix_sim, "sim_robot": args.sim_robot}
    given = [f"{name}={value}" for name, value in flags.items() if value is not None]
    words = [*(word for word in args.data if word not in data), *args.settings, *given]
    bar = ProgressBar()
    try:
        found = fine_tune(args.bundle, data, args.out, apply_overrides(FineTuneConfig(), words), bar)
    finally:
        bar.close()
    print(shown(read_table(found.report)))
    where = f"report in {found.report.parent}"
    if found.improved:
        print(f"{args.out}: written, mode {found.mode}, {found.updates} updates ({found.ended_by}); {where}")
        return 0
    print(f"nothing was written: {'; '.join(found.reasons)}; {where}", file=sys.stderr)
    return NOT_BETTER


def _add_finetune(commands: Any, name: str) -> None:
    def defaults() -> Any:
        from tdmpc2_core.train.finetune_config import FineTuneConfig

        return FineTuneConfig()

    command = add_command(
        commands,
        name,
        _finetune,
        "train a robot's bundle further on recorded episodes; write it where it is better on held-out ones",
        "tdmpc2 finetune --bundle quadruped --data runs/monday --out runs/monday-tuned --mode auto",
        description="Train a robot's bundle further on recorded episodes. Exit code 3 and no bundle where it "
        "is not better beyond chance on data held out. The run's folder, OUT.run, has the report; a run that "
        "was stopped goes on with the same command.",
    )
    option = command.add_argument
    option("--bundle", required=True, help="checkpoint bundle, or a shipped robot's name")
    option("--data", required=True, nargs="+", metavar="STORE", help="folders of episode stores")
    option("--out", type=Path, required=True, metavar="DIR", help="bundle to write; must not exist")
    option(
        "--mode",
        help="dynamics, residual, full, refresh, or auto: the better of the first two (default auto)",
    )
    option("--mix-sim", type=float, metavar="SHARE", help="of every batch, from simulation (default 0.5)")
    option(
        "--sim-robot",
        metavar="DIR",
        help="embodiment folder fitted to the robot: refresh learns in it, a comparison in it decides",
    )
    _with_settings(command, defaults)


def _add_eval(commands: Any, name: str) -> None:
    summary = "run a bundle in simulation: a robot on the fixed course of commands, a task for whole episodes"
    example = "tdmpc2 eval runs/quadruped/best --planner policy --episodes 16"
    option = add_command(commands, name, _eval, summary, example).add_argument
    option("bundle", type=Path, help="checkpoint bundle")
    option("--planner", help="preset instead of the bundle's own: tiny, small, medium, large, paper, policy")
    option(
        "--episodes", type=natural, default=8, help="side by side; robots get one command each (default 8)"
    )
    option("--seconds", type=positive, default=10.0, help="length of a robot's episode (default 10)")
    option("--task", help="of a bundle that knows several, by name")
    option(
        "--heading-hold",
        type=positive,
        default=0.0,
        metavar="GAIN",
        help="1/s; the planner node's heading hold corrects commands (default: off, the policy alone)",
    )
    _add_robot(option)
    option("--seed", type=int, default=0)
    option("--device", default="cpu", help="torch device (default cpu)")
    option("--json", type=Path, help="also write the result here")
    option("--video", type=Path, metavar="FILE", help="also write a film (.mp4) of the first robot")
    option("--picture", type=Path, metavar="FILE", help="also write a picture (.png) of it")


def _add_watch(commands: Any, name: str) -> None:
    summary = "watch a bundle's robot in MuJoCo's viewer; a film where there is no display"
    example = "tdmpc2 watch runs/quadruped/best --command 0.5 0 0.3"
    option = add_command(commands, name, _watch, summary, example).add_argument
    option("bundle", type=Path, help="checkpoint bundle")
    _add_robot(option)
    option(
        "--command",
        type=float,
        nargs="+",
        dest="command_values",
        metavar="V",
        help="held, in the order of the embodiment (default: drawn)",
    )
    option("--seconds", type=positive, help="how long (default: until closed; 20 for a film)")
    option("--out", type=Path, metavar="FILE", help="write a film (.mp4) here, and open no window")
    option("--planner", help="preset instead of the bundle's own, as of eval")
    option("--seed", type=int, default=0)
    option("--device", default="cpu", help="torch device (default cpu)")


def _add_curves(commands: Any, name: str) -> None:
    summary = "draw the tables of training runs as one picture"
    example = "tdmpc2 curves runs/quadruped runs/quadruped-expert --out curves.png"
    option = add_command(commands, name, _curves, summary, example).add_argument
    option("runs", type=Path, nargs="+", metavar="RUN", help="run folder of train, student or expert")
    option("--out", type=Path, metavar="FILE", help="picture (default: curves.png in the first run)")


def _tasks(args: argparse.Namespace) -> None:
    from tdmpc2_core.envs.registry import DOMAINS

    for domain in DOMAINS:
        found = [task for task in domain.tasks if args.word in task]
        if found and args.word:
            print("\n".join(f"{task:32}{domain.name:12}{domain.status}" for task in found))
        elif found:
            print(f"{domain.name}: {len(found)} tasks, {domain.status}")
            print(textwrap.fill(" ".join(found), 110, initial_indent="  ", subsequent_indent="  "))


def _add_tasks(commands: Any, name: str) -> None:
    tasks = add_command(
        commands,
        name,
        _tasks,
        "list the benchmark tasks, and which of them run on this machine",
        "tdmpc2 tasks walker",
        description="List the 104 tasks that TD-MPC2 was published on, and which of them run "
        "on this machine.\n"
        "Besides them `tdmpc2 train task=` takes gym:ID, such as gym:Pendulum-v1, and MODULE:NAME of a\n"
        "class or function that makes a Gymnasium environment.",
    )
    tasks.add_argument("word", nargs="?", default="", help="only tasks whose name has it, one per line")


def _add_calibrate(commands: Any, name: str) -> None:
    summary = "choose the planner's settings for this machine and a control rate, or where trust ends"
    example = "tdmpc2 calibrate runs/quadruped/best --rate 50 --out runs/quadruped/here"
    option = add_command(commands, name, _calibrate, summary, example).add_argument
    option("bundle", type=Path, help="checkpoint bundle")
    _add_robot(option)
    option("--rate", type=positive, help="decisions per second, Hz")
    option(
        "--trust",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="instead: episode stores of good runs; where trust in the model ends goes into --out",
    )
    option("--trust-hours", type=positive, metavar="H", help="as --trust, with simulated runs as in training")
    option("--false-alarms", type=positive, default=1.0, metavar="N", help="per hour, of trust (default 1)")
    option("--budget", type=positive, help="ms for a plan (default 60 %% of the period)")
    option("--threads", type=natural, default=1, help="threads of torch (default 1)")
    option("--device", default="cpu", help="torch device (default cpu)")
    option("--out", type=Path, help="also write the bundle with these settings here")


def _add_import_urdf(commands: Any, name: str) -> None:
    summary = "make a robot folder from a URDF: MJCF and a draft of its embodiment.yaml"
    example = "tdmpc2 import-urdf crawler.urdf robots/crawler"
    option = add_command(commands, name, _import_urdf, summary, example).add_argument
    option("urdf", type=Path, help="URDF of the robot, xacro resolved")
    option("folder", type=Path, help="folder to make")
    option("--fixed", action="store_true", help="the root link is bolted to the world")


def _add_info(commands: Any, name: str) -> None:
    example = "tdmpc2 info runs/quadruped/best"
    option = add_command(commands, name, _info, "what a bundle holds", example).add_argument
    option("bundle", type=Path, help="checkpoint bundle")
    option("--json", action="store_true", help="everything but the weights, as JSON")


COMMANDS: dict[str, Callable[[Any, str], None]] = {
    "train": _add_train,
    "expert": _add_expert,
    "student": _add_student,
    "collect": _add_collect,
    "pretrain": _add_pretrain,
    "finetune": _add_finetune,
    "eval": _add_eval,
    "watch": _add_watch,
    "curves": _add_curves,
    "calibrate": _add_calibrate,
    "import-urdf": _add_import_urdf,
    "identify": _add_identify,
    "tasks": _add_tasks,
    "info": _add_info,
    "bag": add_bag,
    "data": add_data,
    "replay": add_replay,
    "fault": add_fault,
    "import": _add_import,
    "export": _add_export,
}
"""Sub-commands of ``tdmpc2``, and what adds their options."""


def _parser() -> CommandLine:
    parser = CommandLine(
        prog="tdmpc2",
        description="Train and evaluate TD-MPC2 world models for robots and benchmark tasks.",
        epilog="example: tdmpc2 train robot=quadruped out=runs/quadruped",
        formatter_class=RAW,
    )
    parser.add_argument("--version", action="version", version=f"tdmpc2 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, add in COMMANDS.items():
        add(commands, name)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tdmpc2``; returns the exit code: 0, 2 on a user's mistake, 3 where fine-tuning gained
    nothing, 130 on Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks for completions
        argcomplete.autocomplete(parser)
    command = next((word for word in arguments if word in COMMANDS), "tdmpc2")

    def run() -> int | None:
        args = parser.parse_args(arguments)
        code: int | None = args.run(args)
        return code

    return exit_code("tdmpc2", run, command)


if __name__ == "__main__":
    sys.exit(main())
