"""The 11 tasks on domains of the DeepMind Control Suite that TD-MPC2 was published on beside the stock ones.

Rewards follow Hansen et al. (2024), appendix C; `tolerance` is that of dm_control. The reacher of three links
keeps the stock arm's reach of 0.24 m in links of 0.08 m. Needs the extra `dmcontrol`; imported by `dmcontrol`
when one of these tasks is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from dm_control.rl import control
from dm_control.suite import ball_in_cup, base, cheetah, hopper, pendulum, reacher, walker
from dm_control.utils.rewards import tolerance

_EPISODE = {"walker": 25.0, "cheetah": 10.0}  # s; 20 elsewhere. 1000 control steps everywhere
_CONTROL = {"walker": 0.025, "hopper": 0.02, "cup": 0.02}  # s; elsewhere a physics step
_HIGH = 1.2  # m, of a torso or foot that counts as up


def _at_least(value: float, bound: float, margin: float, at_margin: float) -> float:
    """1 from `bound` on, falling linearly to `at_margin` at `bound` - `margin`."""
    return float(tolerance(value, (bound, math.inf), margin, "linear", at_margin))


def _up(height: float) -> float:
    """1 from 1.2 m on, a Gaussian of margin 0.6 m below."""
    return float(tolerance(height, (_HIGH, math.inf), _HIGH / 2))


def _walk_backwards(speed: float) -> Callable[[Any], float]:
    def reward(physics: Any) -> float:
        stand = (3 * _up(physics.torso_height()) + (1 + physics.torso_upright()) / 2) / 4
        move = _at_least(-physics.horizontal_velocity(), speed, speed / 2, 0.5)
        return stand * (5 * move + 1) / 6

    return reward


def _run_backwards(physics: Any) -> float:
    return _at_least(-physics.speed(), 8.0, 8.0, 0.0)


def _heights(physics: Any, foot: str) -> tuple[float, float]:
    """Of torso and foot, m."""
    return physics.named.data.xpos["torso", "z"], physics.named.data.xpos[foot, "z"]


def _run_on_one_foot(raised: str) -> Callable[[Any], float]:
    def reward(physics: Any) -> float:
        torso, foot = _heights(physics, raised)
        up = (3 * _up(foot) + 2 * _up(torso)) / 5
        return up * (5 * _at_least(physics.speed(), 6.0, 6.0, 0.0) + 1) / 6

    return reward


def _jump(physics: Any) -> float:
    """Mean of standing on either foot, which asks for the other foot and the torso high, at low speed."""
    slow = float(tolerance(physics.speed(), (-0.5, 0.5), 0.5, "linear", 0.0))
    standing = [(5 * _up(sum(_heights(physics, foot)) / 2) + slow) / 6 for foot in ("bfoot", "ffoot")]
    return sum(standing) / 2


def _hop_backwards(physics: Any) -> float:
    standing = float(tolerance(physics.height(), (0.6, 2.0)))
    return standing * _at_least(-physics.speed(), 1.0, 0.5, 0.5)


def _spin_ball(physics: Any) -> float:
    x, z = physics.ball_to_target()
    speed = math.hypot(physics.named.data.qvel["ball_x"].item(), physics.named.data.qvel["ball_z"].item())
    far, fast = _at_least(math.hypot(x, z), 0.5, 0.25, 0.5), _at_least(speed, 6.0, 3.0, 0.5)
    return (1 - physics.in_target()) * (far + 2 * fast) / 3


def _spin_pole(physics: Any) -> float:
    return _at_least(abs(physics.angular_velocity().item()), 9.0, 4.5, 0.5)


class _Cup(ball_in_cup.BallInCup):
    """Nine of ten episodes begin with the ball in the cup."""

    def initialize_episode(self, physics: Any) -> None:
        """Draw a place without contact, and of those as said."""
        anywhere = self.random.uniform() < 0.1
        while True:
            physics.named.data.qpos["ball_x"] = self.random.uniform(-0.2, 0.2)
            physics.named.data.qpos["ball_z"] = self.random.uniform(0.2, 0.5)
            physics.after_reset()
            if not physics.data.ncon and (anywhere or physics.in_target()):
                break
        base.Task.initialize_episode(self, physics)


def _three_links() -> tuple[str, dict[str, bytes]]:
    text, assets = reacher.get_model_and_assets()
    root = ElementTree.fromstring(text)
    arm = root.find(".//body[@name='arm']")
    hand = root.find(".//body[@name='hand']")
    assert arm is not None and hand is not None
    finger = hand.find("body[@name='finger']")
    assert finger is not None
    hand.remove(finger)
    third = ElementTree.SubElement(hand, "body", name="third")
    for body, name in ((arm, "arm"), (hand, "hand"), (third, "third")):
        geom = body.find("geom")
        link = geom if geom is not None else ElementTree.SubElement(body, "geom", type="capsule")
        link.attrib |= {"name": name, "fromto": "0 0 0 0.08 0 0", "size": ".01", "material": "self"}
    for body in (hand, third, finger):
        body.set("pos", ".08 0 0")
    ElementTree.SubElement(third, "joint", name="knuckle", limited="true", range="-160 160")
    third.append(finger)
    actuators = root.find("actuator")
    assert actuators is not None
    ElementTree.SubElement(actuators, "motor", name="knuckle", joint="knuckle")
    return ElementTree.tostring(root, encoding="unicode"), assets


_REWARDS: dict[str, Callable[[Any], float]] = {
    "walker-walk-backwards": _walk_backwards(1.0),
    "walker-run-backwards": _walk_backwards(8.0),
    "cheetah-run-backwards": _run_backwards,
    "cheetah-run-front": _run_on_one_foot("bfoot"),
    "cheetah-run-back": _run_on_one_foot("ffoot"),
    "cheetah-jump": _jump,
    "hopper-hop-backwards": _hop_backwards,
    "cup-spin": _spin_ball,
    "pendulum-spin": _spin_pole,
}
_TARGETS = {"reacher-three-easy": 0.05, "reacher-three-hard": 0.015}  # m, radius

_DOMAINS: dict[str, tuple[Any, type, dict[str, Any]]] = {  # module, task class, what it takes beside the seed
    "walker": (walker, walker.PlanarWalker, {"move_speed": 0}),
    "cheetah": (cheetah, cheetah.Cheetah, {}),
    "hopper": (hopper, hopper.Hopper, {"hopping": True}),
    "cup": (ball_in_cup, _Cup, {}),
    "pendulum": (pendulum, pendulum.SwingUp, {}),
}


def load(name: str, seed: int) -> Any:
    """The environment, a dm_control ``control.Environment``, of one of the 11 names of `dmcontrol.CUSTOM`."""
    domain = name.partition("-")[0]
    if domain == "reacher":
        physics = reacher.Physics.from_xml_string(*_three_links())
        task: Any = reacher.Reacher(target_size=_TARGETS[name], random=seed)
    else:
        module, stock, given = _DOMAINS[domain]
        physics = module.Physics.from_xml_string(*module.get_model_and_assets())
        reward = _REWARDS[name]
        kind = type(name, (stock,), {"get_reward": lambda self, physics: reward(physics)})
        task = kind(random=seed, **given)
    return control.Environment(
        physics, task, time_limit=_EPISODE.get(domain, 20.0), control_timestep=_CONTROL.get(domain)
    )
