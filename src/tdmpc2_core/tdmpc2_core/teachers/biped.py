"""Scripted controller of a biped: stands by ankle feedback, steps by placing feet on the capture point.

It reads the true state of the simulation and is only a teacher. The balance model is the linear inverted
pendulum: the capture point xi = c + v / omega of the centre of mass runs away from the centre of pressure p
as xi(t) = p + (xi - p) exp(omega t) (Pratt et al., Humanoids 2006; Englsberger et al., IROS 2011). A swing
foot lands where the next step brings xi back to the periodic gait (Khadiv et al., Humanoids 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.config import from_mapping, setting
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.kinematics import KinematicChain
from tdmpc2_core.robots.rotations import (
    axis_angle_matrix,
    from_roll_pitch_yaw,
    rotation_vector,
    skew,
    to_matrix,
    to_roll_pitch_yaw,
    wxyz_to_xyzw,
    yaw,
)

if TYPE_CHECKING:
    from tdmpc2_core.envs.robot.env import RobotEnv


@dataclass(frozen=True)
class BipedSettings:
    """Keys of a ``demonstration`` section of kind ``biped``; frequency, duty and feet are the clock's."""

    step_width: float = setting(unit="m", above=0, why="between the feet's centres")
    swing_height: float = setting(0.06, unit="m", above=0, why="height of a foot at mid swing")
    crouch: float = setting(0.02, unit="m", low=0, why="lower than the default pose while stepping")
    start_sway: float = setting(0.03, unit="m", low=0, why="shift of weight before the first step")
    ankle_gain: float = setting(1.5, unit="rad/m", low=0, why="standing: ankle pitch per capture point error")
    hip_gain: float = setting(0.5, unit="rad/m", low=0, why="standing: hip roll per capture point error")
    lean: float = setting(0.0, unit="m", why="standing: centre of mass ahead of the middle of the feet")
    capture_gain: float = setting(1.0, low=0, why="stepping: centre of pressure per capture point error")
    upright_gain: float = setting(0.5, low=0, why="stepping: over-correction of the trunk's tilt")
    lead: float = setting(0.02, unit="s", low=0, why="stepping: lag of the legs that stand, made up for")
    swing_lead: float = setting(0.03, unit="s", low=0, why="swing: lag of knee and ankle that is made up for")
    swing_lead_hip: float = setting(0.06, unit="s", low=0, why="swing: lag of the hip that is made up for")
    step_margin: float = setting(
        0.1, unit="m", above=0, why="standing: capture point error that makes it step"
    )
    velocity_gain: float = setting(1.0, above=0, why="stepping: asked per commanded velocity")
    velocity_bias: float = setting(0.0, unit="m/s", why="stepping: asked forward beside the command")


Array = NDArray[np.float64]
_ITERATIONS = 8
_DAMPING = 1e-6  # of the normal equations: steps stay finite where the knee is straight
_MAX_STEP = 0.3  # rad per iteration


class Leg:
    """The chain of hinges from the base body to the body that carries a foot geom.

    Args:
        model: robot model; its base body is the embodiment's ``base_frame``.
        embodiment: gives order and limits of the joints.
        foot: name of a foot geom; the sole is the mean of the lowest points of its body's spheres.

    Raises:
        UserError: the chain has not six of the embodiment's joints.
    """

    def __init__(self, model: mujoco.MjModel, embodiment: Embodiment, foot: str) -> None:
        self.body = int(model.geom(foot).bodyid[0])
        spheres = np.flatnonzero((model.geom_bodyid == self.body) & (model.geom_conaffinity > 0))
        self.sole = model.geom_pos[spheres].mean(axis=0)  # in the foot body's frame, m
        self.sole[2] -= model.geom_size[spheres, 0].mean()
        names, ends = embodiment.joint_names, (embodiment.base_frame, model.body(self.body).name)
        self._chain = KinematicChain.read(embodiment.model_path, *ends, names).extended(self.sole)
        self.joints = self._chain.joints  # indices into the embodiment's joint arrays
        if len(self.joints) != 6:
            raise UserError(
                f"{embodiment.name}: the leg of {foot!r} has {len(self.joints)} joints; "
                f"the stepping controller needs six"
            )
        self._all = np.zeros(embodiment.num_joints)
        self._lower, self._upper = embodiment.lower[self.joints], embodiment.upper[self.joints]

    def forward(self, joints: Array) -> tuple[Array, Array]:
        """Position (3,), m, of the sole and orientation (3, 3) of the foot in the base frame."""
        position, rotation, _ = self._differential(joints)
        return position, rotation

    def inverse(self, position: Array, rotation: Array, start: Array) -> Array:
        """Joints (6,), rad, inside their limits, that bring the sole to a position (3,), turned (3, 3).

        Newton's method from ``start`` (6,); out of reach it ends near the closest pose.
        """
        joints = start.copy()
        for _ in range(_ITERATIONS):
            at, orientation, jacobian = self._differential(joints)
            error = np.concatenate([position - at, rotation_vector(rotation @ orientation.T)])
            if np.abs(error).max() < 1e-6:
                break
            normal = jacobian.T @ jacobian + _DAMPING * np.eye(6)
            step = np.linalg.solve(normal, jacobian.T @ error)
            joints = np.clip(joints + np.clip(step, -_MAX_STEP, _MAX_STEP), self._lower, self._upper)
        return joints

    def support(self, joints: Array, ahead: Array, force: Array) -> Array:
        """Joint efforts (6,), N m, that carry a force (3,), N, at sole + ``ahead`` (3,), m; base frame."""
        jacobian = self._differential(joints)[2]
        moved = jacobian[:3] - skew(ahead) @ jacobian[3:]
        return -moved.T @ force

    def _differential(self, joints: Array) -> tuple[Array, Array, Array]:
        """Sole, orientation and the geometric Jacobian (6, 6): linear rows first."""
        self._all[self.joints] = joints
        position, rotation, jacobian = self._chain.differential(self._all)
        return position, rotation, jacobian[:, self.joints]


class BipedState:
    """One instant, in the world frame; SI units. ``heading`` (2, 2) turns vectors of the heading frame."""

    def __init__(self, simulation: Simulation, legs: list[Leg]) -> None:
        model, data = simulation.model, simulation.data
        mujoco.mj_subtreeVel(model, data)
        body = model.body(simulation.embodiment.base_frame).id
        self.rotation = data.xmat[body].reshape(3, 3).copy()
        self._roll, self._pitch, self.yaw = map(float, to_roll_pitch_yaw(wxyz_to_xyzw(data.xquat[body])))
        self.heading = about_z(self.yaw)[:2, :2]
        self.base, self.base_velocity = data.xpos[body].copy(), data.qvel[:3].copy()
        feet = [data.xmat[leg.body].reshape(3, 3) for leg in legs]
        self.soles = np.array(
            [data.xpos[leg.body] + foot @ leg.sole for leg, foot in zip(legs, feet, strict=True)]
        )
        self.foot_yaw = [float(yaw(wxyz_to_xyzw(data.xquat[leg.body]))) for leg in legs]
        self.middle = self.soles[:, :2].mean(axis=0)
        self.centre = centre = data.subtree_com[body].copy()
        gravity = -float(model.opt.gravity[2])
        height = centre[2] - simulation.ground_height(self.middle)
        self.omega = float(np.sqrt(gravity / max(height, 0.1)))
        self.velocity = data.subtree_linvel[body, :2].copy()  # of the centre of mass
        self.capture = centre[:2] + self.velocity / self.omega
        self.lean = self.heading.T @ (self.capture - self.middle)  # capture point from the middle of the feet
        self.base_ahead = float((self.heading.T @ (self.base[:2] - centre[:2]))[0])
        self.weight = float(model.body_subtreemass[body]) * gravity

    def tilt(self, share: float) -> Array:
        """Rotation (3, 3) by a share of the trunk's roll and pitch."""
        return to_matrix(from_roll_pitch_yaw(share * self._roll, share * self._pitch, 0.0))


def about_z(angle: float) -> Array:
    """Rotation (3, 3) about the vertical."""
    return axis_angle_matrix((0.0, 0.0, 1.0), angle)


_PHASE_LOCK = 0.02  # cycles per decision by which the inner phase follows the environment's
_RELEASE = 0.9  # per decision: what is left of the stepping pose after the last step
_TURN_SECONDS = 0.5  # in which an error of the heading is forgotten: a policy sees yaw rates, no heading
_MAX_TURN = 0.3  # rad that the wanted heading is ahead of the present one
_REACH = 0.35  # m, longest step
_NARROWEST, _WIDEST = 0.7, 0.42  # share of the step width: feet must not meet; m between them
_SOLE = np.array([0.07, 0.02])  # m ahead and aside that the centre of pressure may lie: inside the foot
_ABREAST, _APART = 0.08, 0.07  # m: two feet are together that are no further ahead, no further off the width
_PRESS = 0.01  # m below its start that a swing ends: a foot comes down before it has to carry, not after


class _Lift(NamedTuple):
    """Where a foot left the ground, in the world."""

    sole: Array  # (3,) m
    yaw: float  # rad


class BipedController:
    """Joint targets of a robot with two six-joint legs; legs and feet are read from its model.

    Raises:
        UserError: the embodiment lacks ``demonstration`` or ``clock``, or a leg has not six joints.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        spec, clock = embodiment.demonstration, embodiment.clock
        if spec is None or clock is None or len(clock.feet) != 2:
            raise UserError(
                f"{embodiment.name}: stepping needs the sections `demonstration` and `clock` with two feet"
            )
        self.settings = from_mapping(BipedSettings, spec.params, f"{embodiment.name}: demonstration")
        self._embodiment, self._clock = embodiment, clock
        self._tick = clock.frequency / embodiment.control_rate  # cycles per decision
        self._swing_seconds = (1.0 - clock.duty) / clock.frequency
        self._step_seconds = 0.5 / clock.frequency
        self._legs: list[Leg] = []
        self.reset()

    def reset(self) -> None:
        """Stand."""
        self._phase: float | None = None
        self._elapsed = 0.0  # cycles since the first step was asked for
        self._starting = False
        self._heading = 0.0  # rad in the world
        self._offset = np.zeros(self._embodiment.num_joints)  # of the stepping pose, when standing again
        self._lift: list[_Lift | None] = [None, None]  # of the feet in swing
        self._targets = self._embodiment.default_position.copy()

    # ---- decisions ----
    def act(self, env: RobotEnv) -> Array:
        """Joint targets (J,), rad."""
        if not self._legs:
            self._prepare(env)
        state = BipedState(env.simulation, self._legs)
        twist = env.embodiment.twist_command
        command = twist.velocity(env.assembler.command) if twist else np.zeros(3)
        self._advance(state, env.assembler.phase)
        self._targets = self._stand(state) if self._phase is None else self._step(state, command)
        return self._targets

    def _prepare(self, env: RobotEnv) -> None:
        embodiment = self._embodiment
        self._legs = [Leg(env.simulation.model, embodiment, foot) for foot in self._clock.feet]
        default = embodiment.default_position
        soles = [leg.forward(default[leg.joints])[0] for leg in self._legs]
        self._height = -float(np.mean([sole[2] for sole in soles]))
        self._side = np.sign([sole[1] for sole in soles])

    def _advance(self, state: BipedState, asked: float | None) -> None:
        """The inner phase: follows the environment's, outlives it until the feet are together."""
        if self._phase is None:
            if asked is not None:
                self._phase, self._elapsed, self._starting = asked, 0.0, True
                self._heading = state.yaw
            else:
                self._maybe_recover(state)
            return
        before = self._stance()
        self._elapsed += self._tick
        self._phase += self._tick
        if asked is not None:
            gap = (asked - self._phase + 0.5) % 1.0 - 0.5
            self._phase += float(np.clip(gap, -_PHASE_LOCK, _PHASE_LOCK))
        self._phase %= 1.0
        self._starting &= self._elapsed < 0.5
        landed = bool((self._stance() & ~before).any())
        if asked is None and landed and self._together(state):
            self._phase = None
            self._lift = [None, None]

    def _maybe_recover(self, state: BipedState) -> None:
        error, margin = state.lean, self.settings.step_margin
        aside = abs(error[1]) > 1.2 * margin  # feet side by side hold more across than along
        if abs(error[0]) < margin and not aside:
            return
        away = int(np.argmax(self._side * error[1]))  # the foot on the side that the robot falls to
        first = away if aside else 1 - away
        self._phase = (self._clock.duty - self._clock.offsets[first]) % 1.0
        self._elapsed, self._starting = 1.0, False
        self._heading = state.yaw

    def _together(self, state: BipedState) -> bool:
        ahead, aside = state.heading.T @ (state.soles[0] - state.soles[1])[:2]
        near = abs(ahead) < _ABREAST and abs(abs(aside) - self.settings.step_width) < _APART
        return near and bool(np.linalg.norm(state.lean) < 0.6 * self.settings.step_margin)

    def _leg_phase(self) -> Array:
        assert self._phase is not None
        return (self._phase + np.asarray(self._clock.offsets)) % 1.0

    def _stance(self) -> NDArray[np.bool_]:
        if self._phase is None or self._starting:
            return np.ones(2, dtype=bool)
        return self._leg_phase() < self._clock.duty

    # ---- standing ----
    def _stand(self, state: BipedState) -> Array:
        settings, wanted = self.settings, self._embodiment.default_position.copy()
        error = state.lean - (settings.lean, 0.0)
        pitch = np.clip(settings.ankle_gain * error[0], -0.25, 0.25)
        roll = np.clip(settings.hip_gain * error[1], -0.2, 0.2)
        for leg in self._legs:
            wanted[leg.joints] += (0.0, roll, 0.0, 0.0, pitch, -roll)
        self._offset = _RELEASE * self._offset
        return wanted + self._offset

    # ---- stepping ----
    def _step(self, state: BipedState, command: Array) -> Array:
        stance, targets = self._stance(), self._embodiment.default_position.copy()
        command = self._corrected(state, command)
        base = state.base[:2] + state.base_velocity[:2] * self.settings.lead
        if self._starting:
            share = 0.5 * np.pi * min(1.0, 2.0 * self._elapsed)
            sway = self._side[1] * self.settings.start_sway * (1.0 - np.cos(share))
            base = state.middle + state.heading @ np.array([state.base_ahead, sway])
        height = self._height - self.settings.crouch * min(1.0, 3.0 * self._elapsed)
        upright = about_z(state.yaw) @ state.tilt(-self.settings.upright_gain)
        for index, leg in enumerate(self._legs):
            start = self._targets[leg.joints]
            if not stance[index]:
                targets[leg.joints] = self._swing(index, state, command, height, start)
                continue
            self._lift[index] = None
            away = np.append(state.soles[index][:2] - base, -height)
            flat = about_z(state.foot_yaw[index] - self._heading_error(state))
            joints = leg.inverse(upright.T @ away, upright.T @ flat, start)
            pressure = self._pressure(index, state, command, bool(stance.all()))
            targets[leg.joints] = joints + self._support(index, joints, upright, state, pressure)
        self._offset = targets - self._embodiment.default_position
        return targets

    def _corrected(self, state: BipedState, command: Array) -> Array:
        """The command as the gait needs it; also turns the wanted heading."""
        period = self._embodiment.control_period
        kept = (1.0 - period / _TURN_SECONDS) * self._heading_error(state)
        self._heading = state.yaw + kept + command[2] * period
        gain, bias = self.settings.velocity_gain, self.settings.velocity_bias
        return command * (gain, gain, 1.0) + (bias, 0.0, 0.0)

    def _heading_error(self, state: BipedState) -> float:
        """Wanted less present heading, rad, at most ``_MAX_TURN``."""
        error = (self._heading - state.yaw + np.pi) % (2.0 * np.pi) - np.pi
        return float(np.clip(error, -_MAX_TURN, _MAX_TURN))

    def _swing(self, index: int, state: BipedState, command: Array, height: float, start: Array) -> Array:
        """Joint targets (6,) of a leg in swing; the heavy hip is led further than knee and ankle."""
        joints = []
        for lead in (self.settings.swing_lead, self.settings.swing_lead_hip):
            sole, turn = self._path(index, state, command, lead)
            base = state.base[:2] + state.base_velocity[:2] * lead
            away = np.append(sole[:2] - base, sole[2] - height)
            flat, trunk = about_z(turn), state.rotation
            joints.append(self._legs[index].inverse(trunk.T @ away, trunk.T @ flat, start))
        return np.concatenate([joints[1][:3], joints[0][3:]])

    def _path(self, index: int, state: BipedState, command: Array, lead: float) -> tuple[Array, float]:
        """World position (3,) of the sole on its way to the landing point, and the foot's yaw."""
        duty = self._clock.duty
        share = (self._leg_phase()[index] - duty) / (1.0 - duty)
        early = min(1.0, share + lead / self._swing_seconds)
        lift = self._lift[index]
        if lift is None:
            lift = self._lift[index] = _Lift(state.soles[index].copy(), state.foot_yaw[index])
        landing = self._landing(index, state, command, (1.0 - share) * self._swing_seconds)
        blend = 0.5 - 0.5 * np.cos(np.pi * early)
        ground = lift.sole[:2] + blend * (landing - lift.sole[:2])
        wanted = state.yaw + self._heading_error(state) + 0.5 * command[2] * self._step_seconds
        turn = lift.yaw + blend * ((wanted - lift.yaw + np.pi) % (2.0 * np.pi) - np.pi)
        height = self.settings.swing_height * np.sin(np.pi * early)
        return np.append(ground, height - _PRESS * share), turn

    def _landing(self, index: int, state: BipedState, command: Array, left: float) -> Array:
        """World position (2,), m, on which the foot has to land in ``left`` s."""
        stand = state.soles[1 - index][:2]
        arrival = (state.capture - stand) * np.exp(state.omega * left)
        step = state.heading.T @ arrival - self._periodic(index, state, command)
        apart = self._side[index] * step[1]
        step[1] = self._side[index] * np.clip(apart, _NARROWEST * self.settings.step_width, _WIDEST)
        step[0] = np.clip(step[0], -_REACH, _REACH)
        return stand + state.heading @ step

    def _periodic(self, index: int, state: BipedState, command: Array) -> Array:
        """Capture point from foot ``index`` (2,), m, heading frame, at its touchdown in the periodic gait."""
        grown = np.exp(state.omega * self._step_seconds)
        offset = command[:2] * self._step_seconds / (grown - 1.0)
        offset[1] -= self._side[index] * self.settings.step_width / (grown + 1.0)
        return offset

    def _support(
        self, index: int, joints: Array, trunk: Array, state: BipedState, pressure: tuple[Array, float]
    ) -> Array:
        """Offsets (6,), rad, with which the servos carry a ground force through the centre of mass."""
        leg, (ahead, load) = self._legs[index], pressure
        lever = state.centre - state.soles[index] - np.append(ahead, 0.0)
        force = load * lever / max(lever[2], 0.1)
        efforts = leg.support(joints, trunk.T @ np.append(ahead, 0.0), trunk.T @ force)
        return efforts / self._embodiment.kp[leg.joints]

    def _pressure(self, index: int, state: BipedState, command: Array, both: bool) -> tuple[Array, float]:
        """Centre of pressure from the sole (2,), m, in the world, and load, N, of a foot on the ground."""
        settings, soles = self.settings, state.soles[:, :2]
        ahead, share = np.zeros(2), 1.0
        if both:
            apart = soles[index] - soles[1 - index]
            share = float(np.clip((state.capture - soles[1 - index]) @ apart / (apart @ apart), 0.0, 1.0))
            if self._starting:
                ahead[0] = state.lean[0]
        else:
            since = (self._leg_phase()[1 - index] - 0.5) / self._clock.frequency  # s since touchdown
            wanted = self._periodic(index, state, command) * np.exp(state.omega * since)
            ahead = settings.capture_gain * (state.heading.T @ (state.capture - soles[index]) - wanted)
        ahead = np.clip(ahead, -_SOLE, _SOLE)
        return state.heading @ ahead, share * state.weight
