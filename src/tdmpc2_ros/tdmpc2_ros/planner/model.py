"""The model in use and its task: configured by the node, exchanged by services while the robot moves."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from rclpy.node import Node

from tdmpc2_core.config import setting
from tdmpc2_core.control.decision import DecisionOptions, OutOfTrust, Successor
from tdmpc2_core.control.trust import TrustLimits
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_ros.planner.telemetry import Telemetry

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.planning import PlannerConfig
    from tdmpc2_core.planning.costs import Costs
    from tdmpc2_ros.planner.thread import ControlThread


DYNAMIC = (
    "deadline_ms",
    "evaluate",
    "heading_hold",
    "publish_latent",
    "disagreement_limit",
    "consistency_limit",
    "out_of_trust",
    "compensate_delay",
    "actuation_delay_ms",
    "cost_speed",
    "cost_speed_cap",
    "cost_keep_out",
    "cost_zone_x",
    "cost_zone_y",
    "cost_zone_radius",
    "cost_foresight",
    "cost_energy",
    "cost_wear",
)
"""Parameters that may change while the node runs."""

_WARM_UP_PLANS = 10
_WARM_UP_PLAN = 0.2  # s, longest of them but for its last iteration


@dataclass(frozen=True)
class PlannerParameters:
    """Parameters of the planner node; 0 and empty texts leave a setting as the bundle has it."""

    model: str = setting("", why="checkpoint bundle, a folder")
    robot: str = setting("", why="embodiment, a shipped name or a path; empty takes the bundle's own")
    prefix: str = setting("", why="before every joint and frame name in messages, such as left_")
    output: Literal["joint_trajectory", "forward_position"] = setting(
        "joint_trajectory",
        why="the plan for a joint_trajectory_controller, or its first row for a forward one",
    )
    cmd_vel_stamped: bool = setting(False, why="cmd_vel is a TwistStamped, not a Twist")
    autostart: bool = setting(
        False, why="configure and activate at start; a mistake ends the node with code 2"
    )
    method: str = setting("bundle", why="name of a planner; bundle takes the bundle's own")
    samples: int = setting(0, low=0, high=65536, why="candidates per iteration of the search")
    iterations: int = setting(0, low=0, high=100, why="iterations of the search")
    prior_weight: float = setting(
        -1.0, low=-1, high=1, why="start of the search: 1 the prior, 0 the plan before, < 0 as in the bundle"
    )
    calibrate: bool = setting(
        False, why="at configure, choose settings that this machine plans with in deadline_ms"
    )
    deadline_ms: float = setting(12.0, unit="ms", above=0, high=1000, why="search time per tick")
    seed: int = setting(0, low=0, why="seed of the planner's random numbers")
    threads: int = setting(1, low=1, high=64, why="threads that torch computes with")
    evaluate: bool = setting(True, why="act without exploration noise")
    task: str = setting("", why="task of a bundle that knows several, at start; empty takes its first")
    heading_hold: float = setting(
        -1.0,
        low=-1,
        high=5,
        unit="1/s",
        why="yaw rate added to cmd_vel per rad off the heading that it asked for; < 0 takes the robot's own",
    )
    publish_latent: bool = setting(False, why="publish ~/latent, the model's view of every decision")
    disagreement_limit: float = setting(
        0.0, low=0, unit="reward units", why="spread of the value heads that ends trust; 0 does not judge it"
    )
    consistency_limit: float = setting(
        0.0, low=0, why="latent prediction error that ends trust; 0 does not judge it"
    )
    out_of_trust: OutOfTrust = setting(
        "prior",
        why="what is done while a calibrated bundle's gate does not trust its model; note plans on",
    )
    compensate_delay: bool = setting(
        False, why="plan from where the model foretells the robot once the actions in flight have acted"
    )
    actuation_delay_ms: float = setting(
        0.0, unit="ms", low=0, high=160, why="from a command to its effect, which stamps do not show"
    )
    cost_speed: float = setting(0.0, low=0, unit="return / (m/s)^2", why="of speed above cost_speed_cap")
    cost_speed_cap: float = setting(0.3, low=0, unit="m/s", why="what cost_speed leaves free")
    cost_keep_out: float = setting(0.0, low=0, unit="return / m^2", why="of the depth in the zone")
    cost_zone_x: float = setting(2.0, unit="m", why="the zone's centre ahead of the base, at each decision")
    cost_zone_y: float = setting(0.0, unit="m", why="the zone's centre to the left of it")
    cost_zone_radius: float = setting(0.5, low=0, unit="m", why="the zone's radius")
    cost_foresight: float = setting(0.6, low=0, unit="s", why="the zone is met where the robot will be then")
    cost_energy: float = setting(0.0, low=0, unit="return / W", why="of the drives' mechanical power")
    cost_wear: float = setting(0.0, low=0, unit="return / (rad/s)^2", why="of the mean square joint velocity")
    shadow: bool = setting(False, why="decide and publish ~/plan, command nothing: no command topic is made")
    supervisor: bool = setting(
        False, why="hold where no supervisor is heard; launch files and quickstart start one"
    )
    report: str = setting("", why="JSON file for a summary of the run at shutdown; empty writes none")


def load_agent(
    parameters: PlannerParameters, path: str = "", robot: Embodiment | None = None
) -> tuple[Agent, str]:
    """The agent of a bundle with the parameters' planner settings, its first plans computed; and what a
    calibration says, empty without one.

    Args:
        path: the bundle; empty takes the parameter `model`.
        robot: what the agent shall drive; None takes the parameter `robot`, or what the bundle was made for.

    Raises:
        UserError: the bundle is missing, damaged or for another robot, or a setting does not fit it.
    """
    path = path or parameters.model
    if not path:
        raise UserError("parameter model is empty; give the folder of a checkpoint bundle, -p model:=FOLDER")
    if robot is None and parameters.robot:
        robot = Embodiment.load(parameters.robot)
    _prepare_torch(parameters.threads)
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.calibration import calibrate

    agent = Agent.load(path, embodiment=robot, seed=parameters.seed)
    driven = agent.embodiment
    if driven is None:
        raise UserError(f"{path}: this bundle is for no robot; train one with an embodiment")
    config = _overridden(agent.planner_config, parameters)
    own = config == agent.planner_config
    agent = agent if own else agent.fork(config, parameters.seed)
    line = ""
    if parameters.calibrate and agent.model.config.num_tasks:
        raise UserError(
            "parameter calibrate: works for models of one task; set samples and iterations instead"
        )
    if parameters.calibrate:
        measured = agent.measured if own else ()  # settings given as parameters are reduced, not replaced
        found = calibrate(agent, driven.control_rate, 1e-3 * parameters.deadline_ms, measured)
        agent, line = agent.fork(found.config, parameters.seed), str(found)
    _check_iteration(agent)
    warm_up(agent)
    return agent, line


def wanted_costs(parameters: PlannerParameters, own: Costs) -> Costs:
    """The parameters' costs; while all of them are at their defaults `own`, those of the bundle."""
    from tdmpc2_core.planning.costs import Costs

    given = Costs(
        speed=parameters.cost_speed,
        speed_cap=parameters.cost_speed_cap,
        keep_out=parameters.cost_keep_out,
        zone=(parameters.cost_zone_x, parameters.cost_zone_y, parameters.cost_zone_radius),
        foresight=parameters.cost_foresight,
        energy=parameters.cost_energy,
        wear=parameters.cost_wear,
    )
    return own if given == Costs() else given


def apply_costs(agent: Agent, parameters: PlannerParameters, own: Costs) -> None:
    """Give the agent the costs that are wanted, see `wanted_costs`, from its next plan on.

    Raises:
        UserError: the planner or the model knows no such costs; the agent is as it was.
    """
    wanted = wanted_costs(parameters, own)
    if wanted != agent.planner_config.costs:
        agent.set_costs(wanted)


_CHECKED_FROM, _MEASURED_WITH = 16384, 512  # candidate decisions; candidates
_ITERATION = 1.0  # s, longest iteration: a search ends only between two, and so does the process


def _check_iteration(agent: Agent) -> None:
    """Raise UserError for a search of which one iteration takes too long here to be of any use."""
    config = agent.planner_config
    if config.num_samples * config.horizon <= _CHECKED_FROM or config.num_samples <= _MEASURED_WITH:
        return
    few = replace(
        config,
        num_samples=_MEASURED_WITH,
        num_elites=min(config.num_elites, _MEASURED_WITH),
        num_pi_trajs=min(config.num_pi_trajs, _MEASURED_WITH // 2),
        iterations=1,
    )
    trial = agent.fork(few, 0)
    assert agent.embodiment is not None
    observation, task = np.zeros(agent.embodiment.observation_dim, np.float32), task_index(agent, "")
    seconds = math.inf
    for _ in range(2):  # the first is slower
        started = time.monotonic()
        trial.plan(observation, now=0.0, first=True, task=task)
        seconds = min(seconds, time.monotonic() - started)
    expected = seconds * config.num_samples / _MEASURED_WITH
    if expected > _ITERATION:
        most = int(_MEASURED_WITH * _ITERATION / seconds)
        raise UserError(
            f"samples {config.num_samples}: one iteration would take {expected:.1f} s on this machine, at "
            f"most {_ITERATION:g} s may pass; take at most {most}"
        )


def check_deadline(node: Node, parameters: PlannerParameters, robot: Embodiment) -> None:
    """Raise UserError for a search time that no control period has room for; simulated time may wait."""
    simulated = node.get_parameter("use_sim_time").value
    if not simulated and parameters.deadline_ms > 1e3 * robot.control_period:
        raise UserError(
            f"deadline_ms is {parameters.deadline_ms:g}, at most the control period of {robot.name}, "
            f"{1e3 * robot.control_period:g} ms"
        )


def task_index(agent: Agent, name: str) -> int | None:
    """Index of a task in the agent's model, its first for an empty name; None where the model knows but one.

    Raises:
        UserError: the model does not know the task, or knows but one.
    """
    if agent.model.config.num_tasks == 0:
        if name:
            robot = agent.embodiment.name if agent.embodiment else ""
            raise UserError(
                f"task {name!r}: the model of robot {robot!r} knows a single task, nothing to choose"
            )
        return None
    if not name:
        return 0
    if name not in agent.tasks:
        known = ", ".join(agent.tasks) or "none by name"
        raise UserError(f"task {name!r}: unknown to the model; it knows {known}")
    return agent.tasks.index(name)


def _digest(path: str) -> str:
    from tdmpc2_core.checkpoint.manifest import content_digest  # here: its package imports torch

    return content_digest(path)


def warm_up(agent: Agent) -> None:
    """Plan a few times, so that the first tick on the robot takes no longer than later ones."""
    assert agent.embodiment is not None
    observation = np.zeros(agent.embodiment.observation_dim, np.float32)
    task = task_index(agent, "")
    for k in range(_WARM_UP_PLANS):
        agent.plan(observation, now=0.0, first=k == 0, task=task, deadline=time.monotonic() + _WARM_UP_PLAN)
    tasks = None if task is None else np.array([task])
    agent.act(observation[None], evaluate=True, task=tasks, use_prior=True)


def _prepare_torch(threads: int) -> None:
    """Fix torch's thread counts. OpenMP reads its variable when torch is imported, so this comes first."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # arithmetic on denormals is up to 100 times slower
    with contextlib.suppress(RuntimeError):  # can be set once per process
        torch.set_num_interop_threads(1)


def _overridden(config: PlannerConfig, parameters: PlannerParameters) -> PlannerConfig:
    """`config` with the parameters that are given; elites and policy trajectories shrink with the samples."""
    samples, elites, trajectories = config.num_samples, config.num_elites, config.num_pi_trajs
    if parameters.samples:
        samples = parameters.samples
        elites, trajectories = max(1, min(elites, samples // 4)), min(trajectories, samples // 2)
    try:
        return replace(
            config,
            method=config.method if parameters.method == "bundle" else parameters.method,
            iterations=parameters.iterations or config.iterations,
            num_samples=samples,
            num_elites=elites,
            num_pi_trajs=trajectories,
            prior_weight=config.prior_weight if parameters.prior_weight < 0.0 else parameters.prior_weight,
        )
    except ValueError as problem:
        raise UserError(f"parameters of planner: {problem}") from None


_UNCONFIGURED = "the planner is not configured; set its parameter model and configure it"


class ModelSlot:
    """Holds the agent from configure to cleanup. `lock` is held while agent, task or thread change.

    Attributes:
        agent: None while the node is unconfigured.
        path: the bundle it came from; `bundle`: sha256 of its content.
        options: what decisions follow; its task is an index in the agent's model.
        thread: the control thread, while the node is active.
        telemetry: there as long as the agent is.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.lock = threading.RLock()
        self.options = DecisionOptions()
        self.agent: Agent | None = None
        self.path = self.bundle = ""
        self._own_costs: Costs | None = None
        self.thread: ControlThread | None = None
        self.telemetry: Telemetry | None = None

    def put(self, agent: Agent, values: PlannerParameters, names: Sequence[str]) -> None:
        """Hold a new agent; `names`: its joints as ROS knows them.

        Raises:
            UserError: the model does not know the parameters' task, or the planner not their costs.
        """
        with self.lock:
            self.options.task = task_index(agent, values.task)
            own = agent.planner_config.costs
            apply_costs(agent, values, own)  # here: a refusal leaves the slot empty
            self.agent, self.path, self._own_costs = agent, values.model, own
            self.bundle = _digest(values.model)
            self.telemetry = Telemetry(self._node, agent, names, self.options)
            self.retune(values)

    def clear(self) -> None:
        """Give the agent and its topics up."""
        with self.lock:
            if self.telemetry is not None:
                self.telemetry.destroy()
            self.agent, self.telemetry, self.path, self.bundle = None, None, "", ""

    def check(self, values: PlannerParameters) -> None:
        """Raise UserError where the planner cannot weigh the costs of these parameters, or where the search
        has more time than the robot."""
        if self.robot is not None:
            check_deadline(self._node, values, self.robot)
        agent, own = self.agent, self._own_costs
        if agent is None or own is None:
            return
        wanted = wanted_costs(values, own)
        if wanted != agent.planner_config.costs:
            agent.fork().set_costs(wanted)

    def retune(self, values: PlannerParameters) -> None:
        """Follow the dynamic parameters; those that `check` has passed."""
        with self.lock:
            if self.agent is not None and self._own_costs is not None:
                apply_costs(self.agent, values, self._own_costs)
        options = self.options
        options.deadline, options.evaluate = 1e-3 * values.deadline_ms, values.evaluate
        options.heading_hold = None if values.heading_hold < 0.0 else values.heading_hold
        options.limits = TrustLimits(values.disagreement_limit, values.consistency_limit)
        options.out_of_trust = values.out_of_trust
        options.compensate_delay = values.compensate_delay
        options.actuation_delay = 1e-3 * values.actuation_delay_ms
        if self.telemetry is not None:
            self.telemetry.latent = values.publish_latent

    def replace(self, old: Agent, successor: Successor, path: str, values: PlannerParameters) -> None:
        """Use the successor, from the bundle at `path`, in place of `old`; from the next tick on when active.

        Raises:
            UserError: `old` is no longer in use, or the new planner does not know the parameters' costs.
        """
        with self.lock:
            if self.agent is not old or self.telemetry is None:
                raise UserError("the planner was configured anew while the model was loading; load it again")
            own = successor.agent.planner_config.costs
            apply_costs(successor.agent, values, own)
            self.agent, self.path, self._own_costs = successor.agent, path, own
            self.bundle = _digest(path)
            self.telemetry.follow(successor.agent)
            if self.thread is not None:
                self.thread.succeed(successor)
            else:  # activation makes a worker of its own
                successor.worker.stop()
                self.options.task = successor.task

    @property
    def robot(self) -> Embodiment | None:
        """What the agent drives."""
        return self.agent.embodiment if self.agent else None

    @property
    def task(self) -> str:
        """What the model acts on: the active one of its tasks, or the robot's own."""
        agent, index = self.agent, self.options.task
        if agent is None or agent.embodiment is None:
            return ""
        if index is None:
            return agent.embodiment.task
        return agent.tasks[index] if index < len(agent.tasks) else str(index)

    @property
    def tasks(self) -> list[str]:
        """All that the model knows by name; empty for a model of one task."""
        return list(self.agent.tasks) if self.agent and self.agent.model.config.num_tasks else []

    def choose(self, name: str) -> str:
        """Act on another task from the next decision on; returns the one before.

        Raises:
            UserError: there is no agent, or its model does not know the task.
        """
        with self.lock:
            if not name:
                raise UserError(f"task is empty; accepted: {', '.join(self.tasks) or 'none'}")
            before, self.options.task = self.task, task_index(self.configured(), name)
            return before

    def configured(self) -> Agent:
        """The agent. Raises UserError when there is none."""
        if self.agent is None:
            raise UserError(_UNCONFIGURED)
        return self.agent
