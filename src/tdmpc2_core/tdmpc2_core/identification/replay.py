"""Replay of segments in simulation: from a start that the data give, under the commands that were sent."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
from mujoco.rollout import Rollout
from numpy.typing import NDArray

from tdmpc2_core.envs.robot.drives import settle_couplings
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.identification.segments import Segments
from tdmpc2_core.robots.embodiment import Embodiment, PlantSpec
from tdmpc2_core.robots.rotations import gravity_direction, into_frame, to_matrix, wxyz_to_xyzw

Array = NDArray[np.float64]

_QUIET = {"joint_position": 0.003, "joint_velocity": 0.1, "gyro": 0.03, "gravity": 0.005}
HEIGHT = 8
"""Place of the height among the corrections of a start."""
_HEIGHT = 0.006  # m, how well the stance says how high the base is
_SPEED, _MEASURED_SPEED = 0.4, 0.1  # m/s, how well the legs say how fast it is, and the data where they do
_LOW = 0.012  # m above the lowest foot: feet this low are taken to stand
_FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS.value


def sensor_noise(robot: Embodiment) -> dict[str, float]:
    """Standard deviations of readings in their units, from the observation's noise where it has some."""
    widths = {term.name: float(term.noise) for term in robot.observation.terms}
    return {name: max(widths.get(name, 0.0) / np.sqrt(3.0), quiet) for name, quiet in _QUIET.items()}


class Replay:
    """Predicts segments under any plant, delay and correction of their starts.

    A correction of a start has N entries per segment: velocity (3), roll and pitch, rates (3) and height of a
    base that moves, then J positions and J velocities of the joints. `start_noise` (S, N) says how far each
    is to be trusted, `start_step` (N,) by how much to change it to see its effect.

    Args:
        robot: whose model is replayed.
        segments: of it.
        threads: that step physics side by side.

    Raises:
        UserError: a robot that walks has no feet by name, which say how high its base is.
    """

    def __init__(self, robot: Embodiment, segments: Segments, threads: int = 1) -> None:
        loaded = replace(robot, plant=replace(robot.plant, mass=1.0))
        object.__setattr__(loaded, "directory", robot.directory)
        self.robot, self.segments, self._simulation = robot, segments, Simulation(loaded)
        self._noise = sensor_noise(robot)
        model = self._simulation.model
        self._rollout = Rollout(nthread=threads if threads > 1 else 0)
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self.floating = self._simulation.floating
        if self.floating and not len(self._simulation.feet):
            raise UserError(f"{robot.name}: clock.feet names no feet, which say how high the base stands")
        self.own_friction = self._simulation.sliding_friction
        self._height, self._speed = self._stances()
        self.start_noise, self.start_step = self._starts()

    def predict(self, plant: PlantSpec, delay: float, correction: Array) -> Array:
        """Predictions (S, K * (2 J + 6)), in units of sensor noise: positions, velocities, gyro, gravity.

        A base that is fixed has no gyro and gravity. A segment whose simulation fails is not a number.
        """
        simulation, segments = self._simulation, self.segments
        simulation.set_plant(plant)
        steps = (segments.position.shape[1] - 1) * self.robot.physics_steps
        controls = np.zeros((len(segments), steps, simulation.model.nu))
        controls[:, :, simulation.actuators] = self._played(delay, steps)
        states, _ = self._rollout.rollout(
            [simulation.model] * len(segments), self._data, self._initial(correction), controls
        )
        every = self.robot.physics_steps
        return self._read(states[:, every - 1 :: every])

    def measured(self) -> Array:
        """What `predict` is to meet, in the same units and order."""
        s = self.segments
        parts = [s.position[:, 1:], s.velocity[:, 1:]]
        if self.floating:
            parts += [s.gyro[:, 1:], s.gravity[:, 1:]]
        return self._scaled(parts)

    def channels(self) -> dict[str, NDArray[np.intp]]:
        """Where each quantity lies in a prediction."""
        joints, steps = self.robot.num_joints, self.segments.position.shape[1] - 1
        widths = {"joint_position": joints, "joint_velocity": joints}
        widths |= {"gyro": 3, "gravity": 3} if self.floating else {}
        names = np.repeat(list(widths), list(widths.values()))
        every = np.tile(names, steps)
        return {name: np.flatnonzero(every == name) for name in widths}

    # ---- parts of a prediction ----
    def _played(self, delay: float, steps: int) -> Array:
        """Targets (S, steps, J) that the drives follow when commands arrive `delay` s after they left."""
        robot, segments = self.robot, self.segments
        ahead = (np.arange(steps) + 1) / robot.physics_rate
        result = np.empty((len(segments), steps, robot.num_joints))
        ramp = robot.action.interpolation == "linear"
        for row, (sent, targets) in enumerate(zip(segments.sent, segments.targets, strict=True)):
            if ramp:  # each is reached a period after it arrived
                at = ahead - delay - robot.control_period
                before = np.clip(np.searchsorted(sent, at, side="right") - 1, 0, len(sent) - 2)
                share = np.clip((at - sent[before]) / (sent[before + 1] - sent[before]), 0.0, 1.0)[:, None]
                result[row] = targets[before] + share * (targets[before + 1] - targets[before])
            else:  # held: the mean over a physics step, so that the effect of a delay is smooth
                ends = np.append(sent[1:], np.inf)
                low, high = ahead - 1.0 / robot.physics_rate - delay, ahead - delay
                overlap = np.minimum(high[:, None], ends) - np.maximum(low[:, None], sent)
                weight = np.clip(overlap, 0.0, None) * robot.physics_rate
                result[row] = weight @ targets / weight.sum(axis=1, keepdims=True)
        return result

    def _initial(self, correction: Array) -> Array:
        """MuJoCo's full physics states (S, n) at the starts."""
        simulation, segments = self._simulation, self.segments
        model, joints = simulation.model, self.robot.num_joints
        position = np.tile(model.qpos0, (len(segments), 1))
        velocity = np.zeros((len(segments), model.nv))
        own = correction[:, -2 * joints :]
        position[:, simulation.joint_qpos] = segments.position[:, 0] + own[:, :joints]
        velocity[:, simulation.joint_qvel] = segments.velocity[:, 0] + own[:, joints:]
        if self.floating:
            orientation = _upright(segments.gravity[:, 0], correction[:, 3:5])
            position[:, :2], position[:, 2] = 0.0, self._height + correction[:, HEIGHT]
            position[:, 3:7] = orientation
            world = to_matrix(wxyz_to_xyzw(orientation))
            velocity[:, :3] = np.einsum("sij,sj->si", world, self._speed + correction[:, :3])
            velocity[:, 3:6] = segments.gyro[:, 0] + correction[:, 5:8]
        if model.neq:
            for row in position:
                settle_couplings(model, row)
        state = np.zeros((len(segments), mujoco.mj_stateSize(model, _FULL)))
        state[:, 1 : 1 + model.nq] = position
        state[:, 1 + model.nq : 1 + model.nq + model.nv] = velocity
        return state

    def _read(self, states: Array) -> Array:
        simulation, nq = self._simulation, self._simulation.model.nq
        position, velocity = states[..., 1 : 1 + nq], states[..., 1 + nq :]
        parts = [position[..., simulation.joint_qpos], velocity[..., simulation.joint_qvel]]
        if self.floating:
            parts += [velocity[..., 3:6], gravity_direction(wxyz_to_xyzw(position[..., 3:7]))]
        return self._scaled(parts)

    def _scaled(self, parts: list[Array]) -> Array:
        names = ("joint_position", "joint_velocity", "gyro", "gravity")
        scaled = [part / self._noise[name] for name, part in zip(names, parts, strict=False)]
        return np.concatenate(scaled, axis=2).reshape(len(self.segments), -1)

    def _starts(self) -> tuple[Array, Array]:
        joints, noise, count = self.robot.num_joints, self._noise, len(self.segments)
        own = np.repeat([noise["joint_position"], noise["joint_velocity"]], joints)
        own_step = np.repeat([0.004, 0.1], joints)
        if not self.floating:
            return np.tile(own, (count, 1)), own_step
        known = np.asarray(np.isfinite(self.segments.base_velocity).all(axis=1))
        speed = np.where(known[:, None], _MEASURED_SPEED, _SPEED) * np.ones((1, 3))
        rest = np.concatenate([[noise["gravity"]] * 2, [noise["gyro"]] * 3, [_HEIGHT], own])
        step = np.concatenate([[0.03] * 3, [0.005] * 2, [0.05] * 3, [0.001], own_step])
        return np.concatenate([speed, np.tile(rest, (count, 1))], axis=1), step

    def _stances(self) -> tuple[Array, Array]:
        """Heights (S,), m, at which the lowest foot touches; velocities (S, 3) at which low feet stand."""
        count = len(self.segments)
        height, speed = np.zeros(count), np.zeros((count, 3))
        if not self.floating:
            return height, speed
        simulation, joints = self._simulation, self.robot.num_joints
        nothing = np.zeros((count, 9 + 2 * joints))
        self._height, self._speed = height, speed
        states, nq = self._initial(nothing), simulation.model.nq
        for row, state in enumerate(states):
            simulation.data.qpos[:] = state[1 : 1 + nq]
            simulation.data.qvel[:] = state[1 + nq : 1 + nq + simulation.model.nv]
            mujoco.mj_fwdPosition(simulation.model, simulation.data)
            mujoco.mj_fwdVelocity(simulation.model, simulation.data)
            clearance = simulation.foot_height()
            height[row] = -clearance.min()
            low = simulation.feet[simulation.foot_starts[clearance < clearance.min() + _LOW]]
            moves = [_point_velocity(simulation, geom) for geom in low]
            speed[row] = -into_frame(simulation.data.xmat[simulation.base], np.mean(moves, axis=0))
        known = np.asarray(np.isfinite(self.segments.base_velocity).all(axis=1))
        return height, np.where(known[:, None], self.segments.base_velocity, speed)


def _point_velocity(simulation: Simulation, geom: int) -> Array:
    """Velocity (3,) of a geom's centre in the world, m/s."""
    result = np.zeros(6)
    kind = mujoco.mjtObj.mjOBJ_GEOM
    mujoco.mj_objectVelocity(simulation.model, simulation.data, kind, int(geom), result, 0)
    return result[3:]


def _upright(gravity: Array, correction: Array) -> Array:
    """Orientations (S, 4), wxyz, of yaw 0 that see `gravity` (S, 3), with roll and pitch corrected (S, 2)."""
    down = gravity / np.linalg.norm(gravity, axis=1, keepdims=True)
    roll = np.arctan2(-down[:, 1], -down[:, 2]) + correction[:, 0]
    pitch = np.arcsin(np.clip(down[:, 0], -1.0, 1.0)) + correction[:, 1]
    cr, sr, cp, sp = np.cos(roll / 2), np.sin(roll / 2), np.cos(pitch / 2), np.sin(pitch / 2)
    return np.stack([cr * cp, sr * cp, cr * sp, -sr * sp], axis=1)
