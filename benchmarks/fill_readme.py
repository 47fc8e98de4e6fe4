"""Write the measured tables of benchmarks/results/*.json into the pages that show them, between markers."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from common import RESULTS, parser

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = (
    ROOT / "README.md",
    *(
        REFERENCE / f"{name}.md"
        for name in ("performance", "planners", "robot_files", "ros-interface", "fault-suite")
    ),
    ROOT / "docs" / "how-to" / "deploy.md",
)

# name: heading, command, columns (where empty all that any row has)
TABLES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "quickstart_seeds": (
        "Ten seeds of the quickstart, 30 s each: distance is a share of the commanded one, latency is from "
        "the oldest sensor stamp to the published command",
        "python benchmarks/quickstart_seeds.py --seeds 10 --seconds 30",
        (
            "seed",
            "exit code",
            "distance %",
            "velocity error m/s",
            "falls",
            "stop speed m/s",
            "p50 ms",
            "p99 ms",
        ),
    ),
    "control_tick": (
        "The control tick over 60 s at 50 Hz, simulation beside it",
        "python benchmarks/quickstart_seeds.py --seeds 1 --seconds 60 --name control_tick",
        ("p50 ms", "p99 ms", "max ms", "missed", "commands", "planner MB"),
    ),
    "quickstart_busy": (
        "The humanoid's quickstart beside four busy loops on both cores, 30 s each; simulated time waits for "
        "the planner",
        "python benchmarks/quickstart_seeds.py --robot humanoid --seeds 20 --seconds 30 --busy 4 "
        "--name quickstart_busy",
        ("seed", "exit code", "distance %", "velocity error m/s", "falls", "p99 ms", "max ms"),
    ),
    "planning_pays": (
        "The quadruped's search against its prior on the same 32 robots for 10 s: reward per decision, error "
        "of the velocity in m/s, falls, mean second difference of the actions; as trained, and changed",
        "python benchmarks/planning_pays.py --bundle quadruped --robots 32 --seconds 10",
        (),
    ),
    "training": (
        "The training run of the quadruped's bundle: updates, and 16 robots on the fixed course for 10 s",
        "python benchmarks/training_curve.py runs/quadruped --out benchmarks/results",
        ("step", "plans", "return_per_step", "velocity_error", "distance_ratio", "falls", "episodes"),
    ),
    "arm_reach": (
        "The arm on random goals: position within 2 cm after at most 2 s, and still there at the end of 4 s; "
        "then a push of 30 N for 0.2 s on the tool",
        'python benchmarks/arm_reach.py --goals 200 --controllers "policy prior"',
        (),
    ),
    "pushes_scripted": (
        "The humanoid's scripted controller, its teacher, which reads the true state: 16 robots with sensor "
        "noise, random starts and randomisation in each row; pushes last 0.1 s at the torso, in random "
        "directions",
        "python benchmarks/pushes.py --scripted --robots 16 --seconds 5 --name pushes_scripted",
        (),
    ),
    "pushes": (
        "The humanoid's bundle: each row is 16 robots with sensor noise, random starts and randomisation; "
        "pushes last 0.1 s at the torso, in random directions",
        "python benchmarks/pushes.py --robots 16 --seconds 4 --force 50 100",
        (),
    ),
    "training_humanoid": (
        "The training run of the humanoid's bundle",
        "python benchmarks/training_curve.py runs/humanoid --name training_humanoid --out benchmarks/results",
        ("step", "return_per_step", "velocity_error", "distance_ratio", "falls", "episodes"),
    ),
    "heading": (
        "A walk straight ahead without heading hold and with it",
        "python benchmarks/heading.py --robot quadruped --robots 16 --seconds 20 --planner policy\n"
        "python benchmarks/heading.py --robot humanoid --robots 16 --seconds 60 --planner policy",
        (),
    ),
    "setup_cost": (
        "What the first look costs: a fresh clone under an empty home, torch without CUDA",
        "python benchmarks/setup_cost.py",
        (),
    ),
    "faults": (
        "Faults injected into a walking quadruped, and what was done about them",
        "python benchmarks/faults.py",
        (),
    ),
    "startup": ("From a fresh clone to the first command", "python benchmarks/startup.py", ()),
    "against_official": (
        "A plan with the paper's settings and an update of 256 windows, O 24, A 6, one thread on each side",
        "python benchmarks/against_official.py --official DIR --python PY",
        (),
    ),
    "against_official_2_threads": (
        "The same with two threads on each side",
        "python benchmarks/against_official.py --official DIR --python PY --threads 2",
        (),
    ),
    "against_official_avx2": (
        "The same with one thread and vectors of eight, ours without AVX-512",
        'CC="cc -mno-avx512f" python benchmarks/against_official.py --official DIR --python PY '
        "--name against_official_avx2",
        (),
    ),
    "planner_methods": (
        "Reward per decision of the quadruped (8 robots, 4 s, sensor noise and randomisation), return of an "
        "episode of the tasks (5 episodes); latency of one decision on one thread",
        "python benchmarks/planner_methods.py --bundle quadruped --bundle cup-catch --bundle walker-walk",
        ("bundle", "planner", "return", "std", "error m/s", "p50 ms", "p99 ms"),
    ),
    "branch_ranking": (
        "Branch ranking near the prior, 95 % intervals over 60 states (horizon 12: 30; oracle: 20, the arm's "
        "10); gains are returns above that of the prior",
        "python benchmarks/branch_ranking.py --bundle quadruped\n"
        "python benchmarks/branch_ranking.py --bundle humanoid --oracle 3 6 12\n"
        "python benchmarks/branch_ranking.py --bundle humanoid --horizon 12 --count 30\n"
        "python benchmarks/branch_ranking.py --bundle arm --oracle 3 12 --oracle-count 10",
        (),
    ),
    "trust": (
        "Trust figures of the quadruped's bundle, 60 s of simulated time in each condition",
        "python benchmarks/trust.py --seconds 60",
        (),
    ),
    "replay": (
        "Replay memory of a robot with 48 observations and 12 actions, the planner's Gaussians included; "
        "batches of 256 windows of 4 decisions",
        "python benchmarks/replay.py",
        (),
    ),
    "collector": (
        "128 simulated robots without a learner: decisions per second, best and median of 40 runs of 20 "
        "decisions each, and processor time of a decision",
        "python benchmarks/collector.py",
        (),
    ),
    "urdf_survey": (
        "Public URDFs imported: moving joints, those with a drive (others mimic one), how the base stands; "
        "largest error of a frame and of a rotation matrix's entry over all links in six poses, error of the "
        "total mass; steady: MuJoCo computes 0.2 s in the default pose without a warning",
        "python benchmarks/urdf_survey.py FOLDER...",
        (),
    ),
    "urdf_survey_refused": (
        "Public URDFs that are not imported, with the import's sentence",
        "python benchmarks/urdf_survey.py FOLDER...",
        (),
    ),
    "scaling_exponents": (
        "Slope of log time over log multiply-adds (proportional growth is 1) and memory per added unit",
        "python benchmarks/scaling.py",
        (),
    ),
    "scaling": (
        "One iteration of a plan around size 1, 512 samples, horizon 3, one robot; one thread",
        "python benchmarks/scaling.py",
        (),
    ),
}


def table(name: str, content: dict[str, Any]) -> str:
    """One Markdown table with its command and the machine that it was measured on."""
    heading, command, columns = TABLES[name]
    names = columns or tuple(dict.fromkeys(key for row in content["rows"] for key in row))
    machine = content["machine"]
    clock = machine["clock_mhz"]
    where = f"{machine['cores']} cores" + (f" at {clock / 1000:.1f} GHz" if clock else "")
    lines = [f"**{heading}** ({where}):", "", "```bash", command, "```", ""]
    lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in content["rows"]:
        lines.append("| " + " | ".join(_cell(row.get(key, "")) for key in names) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def main() -> int:
    """Replace the text between the markers of every table whose JSON file exists."""
    parser(__doc__ or "", "python benchmarks/fill_readme.py").parse_args()
    blocks: dict[str, str] = {}
    for name in TABLES:
        path = RESULTS / f"{name}.json"
        if not path.exists():
            print(f"{path.name}: not measured yet, left as it is")
            continue
        blocks[name] = (
            f"<!-- begin {name} -->\n{table(name, json.loads(path.read_text()))}\n<!-- end {name} -->"
        )
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name, block in blocks.items():
            pattern = rf"<!-- begin {name} -->.*?<!-- end {name} -->"
            text = re.sub(pattern, lambda _, block=block: block, text, flags=re.S)
        page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
