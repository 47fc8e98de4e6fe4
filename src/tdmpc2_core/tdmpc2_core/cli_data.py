"""Sub-commands of ``tdmpc2`` about recordings: `bag`, `data`, `replay`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc2_core.errors import RAW, UserError, add_command, natural, positive
from tdmpc2_core.files import check_writable, write_json

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.data.episodes import Episode


def _bag_info(args: argparse.Namespace) -> None:
    from tdmpc2_core.data.bags.bag import Bag
    from tdmpc2_core.data.bags.report import info, info_text
    from tdmpc2_core.data.bags.survey import Survey
    from tdmpc2_core.robots import Embodiment

    if args.json:
        check_writable(args.json, "--json")
    given = Embodiment.load(args.embodiment) if args.embodiment else None
    contents = []
    for path in args.bags:
        survey = Survey(Bag(path))
        robot = given or survey.guess()
        contents.append(info(survey, robot, args.namespace, _topics(args.topic)))
        print(info_text(contents[-1]))
    if args.json:
        write_json(args.json, {"bags": contents})


def _bag_convert(args: argparse.Namespace) -> None:
    from tdmpc2_core.data.bags.convert import BagOptions, beside, convert_bags
    from tdmpc2_core.robots import Embodiment

    if args.bundle:
        from tdmpc2_core.checkpoint.bundle import load_bundle

        robot = load_bundle(args.bundle).embodiment
        if robot is None:
            raise UserError(f"{args.bundle}: the bundle is of no robot, or of several; give --embodiment")
    else:
        robot = Embodiment.load(args.embodiment)
    options = BagOptions(
        prefix=args.prefix,
        namespace=args.namespace,
        topics=_topics(args.topic),
        latency=None if args.latency is None else 1e-3 * args.latency,
    )
    reports = convert_bags(args.bags, robot, args.out, options, print)
    episodes = sum(report.episodes for report in reports)
    report, picture = (beside(args.out, name) for name in ("report.json", "timeline.png"))
    print(f"{args.out}: {episodes} episodes; what became of every second: {report}, {picture}")


def _topics(words: Sequence[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for role, equals, topic in pairs:
        if not (role and equals and topic):
            raise UserError(f"--topic {role}: give ROLE=TOPIC, such as joints=/arm/joint_states")
    return {role: topic for role, _, topic in pairs}


def add_bag(commands: Any, name: str) -> None:
    """`tdmpc2 bag`."""
    summary = "rosbag2 recordings: what they hold, and episodes out of them"
    bag = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog="example: tdmpc2 bag convert walk --embodiment quadruped --out episodes/walk",
        formatter_class=RAW,
    )
    parts = bag.add_subparsers(dest="part", required=True)
    example = "tdmpc2 bag info walk --embodiment quadruped --json walk.json"
    info = add_command(parts, "info", _bag_info, "topics, rates, holes, and what they serve", example)
    info.add_argument("--embodiment", metavar="E", help="robot; a shipped one with these joints if absent")
    info.add_argument("--json", type=Path, metavar="FILE", help="also write it here")
    example = "tdmpc2 bag convert walk --embodiment quadruped --out episodes/walk"
    summary = "episodes through the code of the live planner; report and timeline beside the store"
    convert = add_command(parts, "convert", _bag_convert, summary, example)
    robot = convert.add_mutually_exclusive_group(required=True)
    robot.add_argument("--embodiment", metavar="E", help="robot: a shipped name, a folder, or its YAML")
    robot.add_argument("--bundle", type=Path, metavar="B", help="the robot that this bundle is of")
    convert.add_argument("--out", type=Path, required=True, metavar="STORE", help="new episode store")
    convert.add_argument("--prefix", default="", help="before the joints' names in the bag")
    convert.add_argument(
        "--latency", type=positive, metavar="MS", help="from sample to command, where the bag does not tell"
    )
    for option in (info.add_argument, convert.add_argument):
        option("bags", type=Path, nargs="+", metavar="BAG", help="folders or files of rosbag2")
        option("--namespace", default="", help="take topics inside it alone")
        option("--topic", action="append", default=[], metavar="ROLE=TOPIC", help="joints=/arm/joint_states")


def _data_info(args: argparse.Namespace) -> None:
    from tdmpc2_core.data.statistics import info_text, store_info

    for path, option in ((args.json, "--json"), (args.parquet, "--parquet")):
        if path:
            check_writable(path, option)
    found = store_info(args.store)
    print(info_text(found))
    if args.json:
        write_json(args.json, found)
    if args.parquet:
        from tdmpc2_core.data.exchange.tables import write_rows

        rows = [
            {"entry": f"{name}[{k}]"} | {part: values[k] for part, values in figures.items()}
            for name, figures in found["statistics"].items()
            for k in range(len(figures["count"]))
        ]
        write_rows(args.parquet, rows)


def _data_export(args: argparse.Namespace) -> None:
    if args.to == "lerobot":
        from tdmpc2_core.data.exchange.lerobot import export_lerobot

        export_lerobot(args.store, args.out, args.fps, args.robot)
    elif args.to == "minari":
        from tdmpc2_core.data.exchange.minari import export_minari

        export_minari(args.store, args.out)
    else:
        from tdmpc2_core.data.exchange.tables import export_parquet

        export_parquet(args.store, args.out)
    print(args.out)


def _data_import(args: argparse.Namespace) -> None:
    from tdmpc2_core.data.exchange.lerobot import import_lerobot
    from tdmpc2_core.data.exchange.minari import import_minari

    read = {"lerobot": import_lerobot, "minari": import_minari}[args.source]
    print(f"{args.out}: {read(args.folder, args.out)} episodes")


def add_data(commands: Any, name: str) -> None:
    """`tdmpc2 data`."""
    summary = "episode stores: what they hold, and to and from other programs"
    example = "example: tdmpc2 data export episodes/walk --to lerobot --out lerobot/walk"
    data = commands.add_parser(name, help=summary, description=summary, epilog=example, formatter_class=RAW)
    parts = data.add_subparsers(dest="part", required=True)
    example = "tdmpc2 data info episodes/walk"
    option = add_command(
        parts, "info", _data_info, "episodes, rewards, figures of entries", example
    ).add_argument
    option("store", type=Path, metavar="STORE", help="folder of episodes")
    option("--json", type=Path, metavar="FILE", help="also write it here")
    option("--parquet", type=Path, metavar="FILE", help="also write the figures of entries here")
    example = "tdmpc2 data export episodes/walk --to lerobot --out lerobot/walk"
    option = add_command(
        parts, "export", _data_export, "write a store for other programs", example
    ).add_argument
    option("store", type=Path, metavar="STORE", help="folder of episodes")
    option("--to", choices=("lerobot", "minari", "parquet"), required=True, help="layout")
    option("--out", type=Path, required=True, metavar="DIR", help="new folder")
    option(
        "--fps", type=natural, metavar="HZ", help="lerobot: decisions per second, where stamps do not tell"
    )
    option("--robot", default="", metavar="NAME", help="lerobot: type of the robot")
    example = "tdmpc2 data import lerobot/walk --from lerobot --out episodes/walk"
    option = add_command(parts, "import", _data_import, "make a store of a data set", example).add_argument
    option("folder", type=Path, metavar="DIR", help="data set")
    option("--from", dest="source", choices=("lerobot", "minari"), required=True, help="layout")
    option("--out", type=Path, required=True, metavar="STORE", help="new episode store")


def _replay(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from tdmpc2_core.agent import Agent
    from tdmpc2_core.control.trust import TrustLimits
    from tdmpc2_core.replay.along import replay
    from tdmpc2_core.replay.page import table, write_replay

    first = args.recordings[0].resolve()
    out = args.out or first.with_name(f"{first.name}_replay")
    agent = Agent.load(args.bundle, planner=args.planner)
    episodes = _episodes(args, agent)
    check_writable(out / "replay.html", "--out")
    limits = TrustLimits(args.disagreement_limit, args.consistency_limit)
    with tqdm(total=sum(len(episode) for episode, _ in episodes), unit="decision") as bar:

        def tell(done: int) -> None:
            bar.update(done - bar.n)

        along = replay(agent, episodes, args.horizon, limits, tell)
    robot, width = agent.embodiment, agent.model.config.action_dim
    named = robot is not None and len(robot.joint_names) == width
    joints = robot.joint_names if robot is not None and named else [f"action {k}" for k in range(width)]
    print(table(write_replay(out, along, joints, f"{first.name} against {args.bundle}")))
    print(f"{out / 'replay.html'}")


def _episodes(args: argparse.Namespace, agent: Agent) -> list[tuple[Episode, dict[str, Any]]]:
    """Episodes of stores and bags, in the order given."""
    from tdmpc2_core.data.episodes import read_episode, stored_files

    found: list[tuple[Episode, dict[str, Any]]] = []
    for path in args.recordings:
        if path.is_dir() and any(path.glob("[0-9]*.safetensors")):
            found += [read_episode(file) for file in stored_files(path)]
            continue
        from tdmpc2_core.data.bags.convert import BagOptions, read_bags

        if agent.embodiment is None:
            raise UserError(
                f"{args.bundle}: the bundle is of no robot; give an episode store instead of a bag"
            )
        options = BagOptions(prefix=args.prefix, namespace=args.namespace, topics=_topics(args.topic))
        found += read_bags([path], agent.embodiment, options)
    return found


def add_replay(commands: Any, name: str) -> None:
    """`tdmpc2 replay`."""
    summary = "run a planner along recordings: actions, rewards, latents, trust, and the worst ten seconds"
    example = "tdmpc2 replay walk --bundle quadruped --out walk_replay"
    option = add_command(commands, name, _replay, summary, example).add_argument
    option("recordings", type=Path, nargs="+", metavar="BAG", help="rosbag2 recordings or episode stores")
    option("--bundle", required=True, metavar="B", help="checkpoint bundle, or a shipped robot's name")
    option("--out", type=Path, metavar="DIR", help="for replay.json and replay.html (default BAG_replay)")
    option("--planner", help="preset instead of the bundle's own")
    option("--horizon", type=natural, default=10, metavar="K", help="decisions foretold (default 10)")
    for limit in ("disagreement", "consistency"):
        option(f"--{limit}-limit", type=positive, default=0.0, metavar="X", help="of trust, as the planner's")
    option("--prefix", default="", help="before the joints' names in the bag")
    option("--namespace", default="", help="take topics inside it alone")
    option("--topic", action="append", default=[], metavar="ROLE=TOPIC", help="joints=/arm/joint_states")
