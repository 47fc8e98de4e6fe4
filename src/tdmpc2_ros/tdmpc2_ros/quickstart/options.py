"""Command line of the quickstart, checked before anything is started."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from tdmpc2_core.errors import CommandLine, UserError
from tdmpc2_core.files import free_folder, shipped_bundle
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.scoring.course import Course, ReachCourse
from tdmpc2_ros.naming import MAX_ROBOTS
from tdmpc2_ros.quickstart.driving import Drive

RESULTS = "results.json"
"""What a run leaves in its folder, whatever came of it."""
PAGE = "http://127.0.0.1:8080"
"""Where --web shows the robot: the default of the node `view`."""
_SECONDS = 30.0


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    embodiment: Embodiment
    course: Course | ReachCourse | Drive
    model: Path
    out: Path
    record: Path | None
    seed: int
    planner: str
    deadline_ms: float | None
    randomise: bool
    view: bool
    web: bool
    video: bool
    robots: int
    real_time: bool


def parse(arguments: list[str] | None) -> Options:
    """Options from the command line; nothing is written.

    Raises:
        UserError: an option is unknown or out of range, or a robot, model or folder is of no use.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    embodiment = Embodiment.load(given.robot)
    if not 0 <= given.seed < 2**31:
        raise UserError(f"--seed is {given.seed}, must be from 0 to {2**31 - 1}")
    if given.gamepad and not given.drive:
        raise UserError("--gamepad steers a drive; give --drive too")
    course = _course(embodiment, given)
    if given.deadline_ms is not None and not 0.0 < given.deadline_ms <= 1000.0:
        raise UserError(f"--deadline-ms is {given.deadline_ms:g}, must be above 0, at most 1000")
    model = given.model or shipped_bundle(embodiment.name)
    if not (model / "bundle.json").is_file():
        raise UserError(
            f"{model}: no checkpoint bundle there; --model names the folder that holds bundle.json"
        )
    if not 1 <= given.robots <= MAX_ROBOTS:
        raise UserError(f"--robots is {given.robots}, must be from 1 to {MAX_ROBOTS}")
    if given.robots > 1 and embodiment.pose_command:
        raise UserError(f"--robots is for walking robots; {embodiment.name} goes alone")
    if given.robots > 1 and (given.record or given.view or given.web or given.drive):
        raise UserError("--record, --view, --web and --drive are for one robot; leave them out with --robots")
    if given.record and given.record.exists():
        raise UserError(f"--record {given.record}: exists already; give a folder that does not exist yet")
    return Options(
        embodiment=embodiment,
        course=course,
        model=model.resolve(),
        out=(given.out or free_folder(Path("runs/quickstart") / embodiment.name, RESULTS)).resolve(),
        record=given.record and given.record.resolve(),
        seed=given.seed,
        planner=given.planner,
        deadline_ms=given.deadline_ms,
        randomise=given.randomise,
        view=given.view,
        web=given.web,
        video=not given.no_video,
        robots=given.robots,
        real_time=given.real_time,
    )


def _course(embodiment: Embodiment, given: Namespace) -> Course | ReachCourse | Drive:
    if given.drive:
        return Drive(embodiment, given.seconds, given.gamepad)
    seconds = _SECONDS if given.seconds is None else given.seconds
    if embodiment.pose_command:
        return ReachCourse(embodiment, seconds, given.seed)
    return Course(embodiment, seconds)


def _parser() -> CommandLine:
    parser = CommandLine(
        prog="quickstart",
        description="Start simulation and planner as ROS 2 nodes and take the robot through a short course.",
        epilog="Exit code: 0 the robot followed, 1 it did not, 2 a mistake in the call.",
    )
    parser.add_argument("robot", nargs="?", default="quadruped", help="shipped robot (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help=f"length of the course (default: {_SECONDS:g}), or of the drive (until a key ends it)",
    )
    _add_driving(parser)
    parser.add_argument(
        "--seed", type=int, default=0, help="of noise, start and planner (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        "--output",
        type=Path,
        metavar="DIR",
        help="results and logs (default: runs/quickstart/ROBOT; ROBOT-2, ... where that holds results)",
    )
    parser.add_argument("--model", type=Path, help="checkpoint bundle (default: the robot's shipped one)")
    parser.add_argument(
        "--planner",
        choices=("bundle", "mppi", "policy"),
        default="bundle",
        help="search or policy prior alone",
    )
    parser.add_argument(
        "--deadline-ms",
        type=float,
        metavar="MS",
        help="search time per tick instead of the planner's default",
    )
    parser.add_argument(
        "--robots",
        type=int,
        default=1,
        metavar="N",
        help="as many of them, each in a namespace and with a command of its own (default: %(default)s)",
    )
    parser.add_argument(
        "--randomise", action="store_true", help="draw friction, mass and gains from the seed"
    )
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="simulated time does not wait for a planner that this machine runs too slowly",
    )
    parser.add_argument("--record", type=Path, metavar="DIR", help="write a rosbag2 into this new folder")
    parser.add_argument("--view", action="store_true", help="open MuJoCo's viewer, where there is a display")
    parser.add_argument("--web", action="store_true", help=f"show robot and plan in a browser, at {PAGE}")
    parser.add_argument("--no-video", action="store_true", help="render neither film nor picture")
    return parser


def _add_driving(parser: CommandLine) -> None:
    parser.add_argument(
        "--drive",
        action="store_true",
        help="no course: the robot stands until the terminal's keys, or a gamepad, drive it",
    )
    parser.add_argument(
        "--gamepad",
        type=Path,
        metavar="DEVICE",
        help="of --drive: joystick device (default: the first /dev/input/js* that there is)",
    )
