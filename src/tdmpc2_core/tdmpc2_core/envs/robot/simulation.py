"""MuJoCo simulation of one embodiment: what its sensors and drives offer, and the ground truth beside it.

Used by the training environment and by the ROS simulation node. Joint PD runs in the model's position
actuators at the physics rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from mujoco.rollout import Rollout

from tdmpc2_core.envs.robot.drives import (
    check_ground,
    compile_model,
    find_drives,
    make_position_drives,
    settle_couplings,
)
from tdmpc2_core.envs.robot.ground import Ground, Terrain, Terrains, TerrainState, add_terrain
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment, PlantSpec
from tdmpc2_core.robots.rotations import (
    cross,
    from_matrix,
    gravity_direction,
    into_frame,
    rotate,
    tilt,
    to_matrix,
    wxyz_to_xyzw,
    xyzw_to_wxyz,
)
from tdmpc2_core.robots.terms import SOURCES


class Push:
    """A force on a body that lasts for a time.

    Args:
        body: index of the body.
        point: (3,) where the force acts, a view of mjData that moves with the body.

    Attributes:
        until: time at which the force ends, s; 0 where none acts.
    """

    def __init__(self, data: mujoco.MjData, body: int, point: np.ndarray) -> None:
        self._data, self._body, self._point = data, body, point
        self._force, self.until = np.zeros(3), 0.0

    def begin(self, force: np.ndarray, seconds: float) -> None:
        """Force (3,), N, world frame, from now on for ``seconds``."""
        self._force, self.until = np.array(force, dtype=np.float64), self._data.time + seconds

    def state(self) -> tuple[np.ndarray, float]:
        """The force (3,), N, and the time at which it ends, s; 0 without one."""
        return self._force.copy(), self.until

    def restore(self, state: tuple[np.ndarray, float] | None) -> None:
        """Take a `state` over; None: no force."""
        self._force, self.until = (state[0].copy(), state[1]) if state else (np.zeros(3), 0.0)

    @property
    def acts(self) -> bool:
        """Whether a force acts."""
        return bool(self.until)

    @property
    def force(self) -> np.ndarray:
        """The force (3,), N, world frame; zero without one."""
        return self._force if self.until else np.zeros(3)

    def apply(self) -> None:
        """Hand the present force to the next physics step; called before each."""
        if not self.until:
            return
        if self._data.time >= self.until:
            self._force, self.until = np.zeros(3), 0.0
        arm = self._point - self._data.xipos[self._body]
        self._data.xfrc_applied[self._body] = np.concatenate([self._force, cross(arm, self._force)])


class Tool:
    """The site or body that the pose command of an embodiment names: forces on it, and the goal's marker.

    Args:
        place: where its pose stands in mjData: `site_` or nothing before `xpos`, and the index.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, place: tuple[str, int]) -> None:
        prefix, index = place
        body = int(model.site_bodyid[index]) if prefix else index
        self._data, self.push = data, Push(data, body, getattr(data, f"{prefix}xpos")[index])
        goal = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "goal")
        self._marker = int(model.body_mocapid[goal]) if goal >= 0 else -1

    def show_goal(self, pose: np.ndarray, base_position: np.ndarray, base_orientation: np.ndarray) -> None:
        """Move the mocap body `goal`, where the model has one, to a pose (7,) in the base frame."""
        if self._marker < 0:
            return
        self._data.mocap_pos[self._marker] = base_position + rotate(base_orientation, pose[:3])
        rotation = to_matrix(base_orientation) @ to_matrix(pose[3:])
        self._data.mocap_quat[self._marker] = xyzw_to_wxyz(from_matrix(rotation))


_IMU_SENSORS = ("imu_quat", "imu_gyro", "imu_accel")
CONTACT_HEIGHT = 0.003  # m above touching: a foot closer than this to the ground counts as in contact


class Readings:
    """What MuJoCo's arrays say of one robot or, where they have an axis of robots in front, of many.

    ``data`` has the arrays of mjData by their names. Those that are no state (poses, sensors, forces) are
    from before the last physics step, as MuJoCo leaves them. Shapes below are those of one robot.
    """

    embodiment: Embodiment
    model: mujoco.MjModel
    data: Any

    def _find(self) -> None:
        """Where the embodiment's parts lie in the arrays."""
        model, embodiment = self.model, self.embodiment
        self._joint_ids = np.array(
            [self._id(mujoco.mjtObj.mjOBJ_JOINT, name) for name in embodiment.joint_names]
        )
        self.joint_qpos = model.jnt_qposadr[self._joint_ids]
        self.joint_qvel = model.jnt_dofadr[self._joint_ids]
        self.actuators = find_drives(model, self._joint_ids.tolist(), embodiment.model_path)
        self._imu = tuple(map(self._sensor, _IMU_SENSORS)) if embodiment.imu_frame else None
        self.base = self._id(mujoco.mjtObj.mjOBJ_BODY, embodiment.base_frame)
        self.floating = self._is_floating()
        feet = embodiment.clock.feet if embodiment.clock else ()
        self.feet, self.foot_starts = self._find_feet(feet)
        self.foot_radius = model.geom_size[self.feet, 0]
        self._ground: Ground | Terrain | Terrains = self._find_ground()
        self._tool_place = self._find_tool() if embodiment.pose_command else None
        self.sources = tuple(name for name in READERS if SOURCES[name].present(embodiment))

    @property
    def time(self) -> Any:
        """Simulated time, s."""
        return self.data.time

    # ---- what a robot can measure ----
    def read(self, source: str) -> dict[str, np.ndarray]:
        """What the sensors of one of `sources` report now: the fields of its row, and what else its message
        carries; joints in embodiment order."""
        return READERS[source](self)

    def joint_position(self) -> np.ndarray:
        """(J,), rad."""
        return self.data.qpos.take(self.joint_qpos, axis=-1)

    def joint_velocity(self) -> np.ndarray:
        """(J,), rad/s."""
        return self.data.qvel.take(self.joint_qvel, axis=-1)

    def joint_effort(self) -> np.ndarray:
        """(J,), N m, as applied by the drives."""
        return self.data.actuator_force.take(self.actuators, axis=-1)

    def imu(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Orientation (xyzw), angular velocity (rad/s), specific force (m/s^2) in the IMU frame (REP-145).

        A robot without an IMU reports one at rest in its base.
        """
        if self._imu is None:
            orientation, gravity = self.base_pose()[1], self.gravity()
            return orientation, np.zeros_like(gravity), -gravity * abs(self.model.opt.gravity[2])
        quaternion, gyro, acceleration = (self.data.sensordata[..., part].copy() for part in self._imu)
        return wxyz_to_xyzw(quaternion), gyro, acceleration

    # ---- ground truth ----
    def base_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in the world, m, and orientation (xyzw)."""
        if not self.floating:
            return self.data.xpos[..., self.base, :].copy(), wxyz_to_xyzw(self.data.xquat[..., self.base, :])
        return self.data.qpos[..., :3].copy(), wxyz_to_xyzw(self.data.qpos[..., 3:7])

    def base_velocity(self) -> tuple[np.ndarray, np.ndarray]:
        """Linear (m/s) and angular (rad/s) velocity of the base, both in the base frame."""
        if not self.floating:
            nothing = np.zeros_like(self.data.xpos[..., self.base, :])
            return nothing, nothing.copy()
        linear = into_frame(self.data.xmat[..., self.base, :], self.data.qvel[..., :3])
        return linear, self.data.qvel[..., 3:6].copy()

    def gravity(self) -> np.ndarray:
        """True gravity direction in the base frame (3,)."""
        return gravity_direction(self.base_pose()[1])

    def tool_pose(self) -> np.ndarray:
        """Tool of a pose command in the base frame (7,): m, xyzw. Raises UserError for a robot without."""
        position, rotation = self._tool_frame()
        base_position, orientation = self.base_pose()
        base = to_matrix(orientation)
        inverse = np.swapaxes(base, -1, -2)
        turned = from_matrix(inverse @ rotation.reshape(base.shape))
        return np.concatenate([into_frame(base, position - base_position), turned], axis=-1)

    def _tool_frame(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) and rotation matrix (9,) of the tool in the world, of the present joint positions."""
        if self._tool_place is None:
            raise UserError(f"{self.embodiment.name}: has no tool; command.kind pose names one")
        prefix, index = self._tool_place
        position, rotation = getattr(self.data, f"{prefix}xpos"), getattr(self.data, f"{prefix}xmat")
        return position[..., index, :], rotation[..., index, :]

    def ground_height(self, points: np.ndarray) -> np.ndarray:
        """Height (...,) of the ground at points (..., 2) in the world, m: 0 on a plane z = 0."""
        many = isinstance(self._ground, Terrains)  # each robot on a ground of its own
        flat = points.reshape(len(points), -1, 2) if many else points.reshape(-1, 2)
        return self._ground.height(flat).reshape(points.shape[:-1])

    def base_height(self) -> Any:
        """Height of the base above the ground below it, m."""
        position = self.base_pose()[0]
        return position[..., 2] - self.ground_height(position[..., :2])

    def foot_height(self) -> np.ndarray:
        """Clearance above the ground of the lowest sphere of each foot (F,), m."""
        if not len(self.feet):
            return np.zeros((*self.data.qpos.shape[:-1], 0))
        centres = self.data.geom_xpos[..., self.feet, :]
        clearance = centres[..., 2] - self.foot_radius - self.ground_height(centres[..., :2])
        return np.minimum.reduceat(clearance, self.foot_starts, axis=-1)

    def foot_contact(self, height: np.ndarray | None = None) -> np.ndarray:
        """Which feet touch the ground (F,) bool, where `foot_height` is already known from its values."""
        return (self.foot_height() if height is None else height) < CONTACT_HEIGHT

    def fallen(self) -> Any:
        """Whether the embodiment's termination condition holds, bool."""
        return self.embodiment.termination.reached(self.base_height(), tilt(self.base_pose()[1]))

    # ---- finding names in the robot model ----
    def _id(self, kind: mujoco.mjtObj, name: str) -> int:
        index = mujoco.mj_name2id(self.model, kind, name)
        if index < 0:
            what = kind.name.removeprefix("mjOBJ_").lower()
            raise UserError(
                f"{self.embodiment.model_path}: no {what} named {name!r}, which the embodiment "
                f"{self.embodiment.name!r} uses"
            )
        return index

    def _sensor(self, name: str) -> slice:
        index = self._id(mujoco.mjtObj.mjOBJ_SENSOR, name)
        start = self.model.sensor_adr[index]
        return slice(start, start + self.model.sensor_dim[index])

    def _is_floating(self) -> bool:
        """Whether the base moves freely; its free joint then holds the first 7 positions of the model."""
        joints = self.model.body_jntnum[self.base]
        floating = joints == 1 and self.model.body_jntadr[self.base] == 0
        floating = floating and self.model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
        if joints and not floating:
            raise UserError(
                f"{self.embodiment.model_path}: body {self.embodiment.base_frame!r} must be fixed, or move "
                "by a free joint that is the first joint of the model"
            )
        return bool(floating)

    def _find_ground(self) -> Ground | Terrain | Terrains:
        return Ground(self.model)

    def _find_tool(self) -> tuple[str, int]:
        """The tool of the pose command: what precedes `xpos` in the name of its array, and the index."""
        assert self.embodiment.pose_command is not None
        name = self.embodiment.pose_command.tool
        for kind, prefix in ((mujoco.mjtObj.mjOBJ_SITE, "site_"), (mujoco.mjtObj.mjOBJ_BODY, "")):
            index = mujoco.mj_name2id(self.model, kind, name)
            if index >= 0:
                return prefix, index
        raise UserError(
            f"{self.embodiment.model_path}: no site or body named {name!r}, the embodiment's tool"
        )

    def _find_feet(self, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Every colliding sphere of the bodies that the named geoms belong to, and where each foot begins."""
        feet: list[int] = []
        starts: list[int] = []
        model = self.model
        for name in names:
            body = model.geom_bodyid[self._id(mujoco.mjtObj.mjOBJ_GEOM, name)]
            sphere = model.geom_type == mujoco.mjtGeom.mjGEOM_SPHERE
            starts.append(len(feet))
            feet.extend(np.flatnonzero((model.geom_bodyid == body) & sphere & (model.geom_conaffinity > 0)))
            if len(feet) == starts[-1]:
                raise UserError(f"{self.embodiment.model_path}: foot {name!r} has no colliding sphere")
        return np.array(feet, dtype=int), np.array(starts, dtype=int)


_PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION.value  # with warm start, applied forces and mocap bodies
_START, _INPUTS = mujoco.mjtState.mjSTATE_FULLPHYSICS.value, mujoco.mjtState.mjSTATE_USER.value
_CONTROLS = mujoco.mjtState.mjSTATE_CTRL.value
_LEFT_BY_A_STEP = (
    *("xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat"),
    *("cvel", "subtree_com", "subtree_linvel", "sensordata", "actuator_force"),
)


@dataclass(frozen=True)
class SimulationState:
    """A simulation at one instant; arrays only, so that it can be kept, pickled and restored repeatedly."""

    physics: np.ndarray  # MuJoCo's mjSTATE_INTEGRATION
    left: dict[str, np.ndarray]  # poses, sensors and forces, which are from before the last step
    friction: float | None
    extra_mass: float
    gains: np.ndarray  # (J,)
    effort: np.ndarray  # (J,)
    payload: np.ndarray  # (4,): kg, and m from base or tool
    terrain: TerrainState | None
    pushes: tuple[tuple[np.ndarray, float] | None, ...]  # N, and the time at which each ends, s
    generator: Mapping[str, Any]


class _Strip:
    """Several physics steps of one world in one call, as a loop over `mj_step` takes them.

    Args:
        model: of the world.
        data: as it was made: a rollout sets inputs that it is not given to what they are there.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._models, self._data, self._rollout = [model], [data], Rollout(nthread=0)
        self._start = np.empty((1, mujoco.mj_stateSize(model, _START)))  # its first value is the time
        self._warm_start = np.empty((1, model.nv))
        self._inputs = np.empty(mujoco.mj_stateSize(model, _INPUTS))  # the controls come first
        mujoco.mj_getState(model, data, self._inputs, _INPUTS)
        self._controls, self._timestep = model.nu, model.opt.timestep
        self._unset = self._inputs[self._controls :].tobytes()

    def play(self, targets: np.ndarray, actuators: np.ndarray | None) -> None:
        """Steps under rows of controls (n, J) of these actuators or all; other inputs stay as they are."""
        (model,), (data,) = self._models, self._data
        mujoco.mj_getState(model, data, self._start[0], _START)
        mujoco.mj_getState(model, data, self._inputs, _INPUTS)
        self._warm_start[0] = data.qacc_warmstart
        if self._inputs[self._controls :].tobytes() == self._unset and actuators is None:
            spec, rows = _CONTROLS, targets[None]  # half as dear
        else:
            spec, rows = _INPUTS, np.empty((1, len(targets), len(self._inputs)))
            rows[:] = self._inputs
            rows[0][:, slice(self._controls) if actuators is None else actuators] = targets
        self._rollout.rollout(
            self._models,
            self._data,
            self._start,
            rows,
            control_spec=spec,
            skip_checks=True,
            nstep=len(targets),
            initial_warmstart=self._warm_start,
        )
        if abs(data.time - self._start[0, 0] - len(targets) * self._timestep) > 0.5 * self._timestep:
            self._step(rows[0], spec)  # MuJoCo gave a warning: it left steps out, or started anew

    def _step(self, rows: np.ndarray, spec: int) -> None:
        """The same steps one after the other."""
        (model,), (data,) = self._models, self._data
        mujoco.mj_setState(model, data, self._start[0], _START)
        data.qacc_warmstart[:] = self._warm_start[0]
        for row in rows:
            mujoco.mj_setState(model, data, row, spec)
            mujoco.mj_step(model, data)


_PAYLOAD, _LOAD = "payload", "plant_load"  # bodies: what an episode draws, and what the machine carries
_PAYLOAD_SIDE = 0.1  # m


def load_model(embodiment: Embodiment) -> mujoco.MjModel:
    """The robot's model, with what the ranges of its embodiment need beside it.

    Raises:
        UserError: MuJoCo cannot read it, or the ranges shape the ground and the model does not allow it.
    """
    ranges, model = embodiment.randomisation, compile_model(embodiment.model_path)
    loads = [_LOAD] if embodiment.plant.mass > 0.0 else []
    loads += [_PAYLOAD] if ranges.hardest.payload[1] > 0.0 else []
    if not loads and not ranges.terrain:
        return model
    spec = mujoco.MjSpec.from_file(str(embodiment.model_path))
    if ranges.terrain:
        add_terrain(spec, embodiment)
    if loads:
        body, pose = spec.body(embodiment.base_frame), embodiment.pose_command
        fixed = not any(joint.type == mujoco.mjtJoint.mjJNT_FREE for joint in body.joints)
        if pose and fixed:
            site = spec.site(pose.tool)
            body = site.parent if site else spec.body(pose.tool)
        for name in loads:
            body.add_body(name=name, mass=0.0, inertia=[0.0, 0.0, 0.0], explicitinertial=True)
    return spec.compile()


class Simulation(Readings):
    """One robot in one MuJoCo world.

    Raises:
        UserError: the robot model cannot be read, lacks a joint, the IMU or a foot that the embodiment names,
            has a drive that is not understood, or a free base without ground.
    """

    def __init__(self, embodiment: Embodiment, seed: int = 0) -> None:
        self.embodiment = embodiment
        self.rng = np.random.default_rng(seed)
        self.model = load_model(embodiment)
        self.model.opt.timestep = 1.0 / embodiment.physics_rate
        self.data = mujoco.MjData(self.model)
        self._strip = _Strip(self.model, self.data)
        self._find()
        make_position_drives(self.model, self.actuators)
        if self.floating:
            check_ground(self.model, self.base, embodiment.model_path)
        in_order = np.array_equal(self.actuators, np.arange(self.model.nu))
        self._some_actuators = None if in_order else self.actuators  # None: all, as the joints come
        self._tool = Tool(self.model, self.data, self._tool_place) if self._tool_place else None
        self._tool_push = self._tool.push if self._tool else None
        self._quaternions = np.empty(4), np.empty(4)  # wxyz, of `tool_pose`
        self._base_push = Push(self.data, self.base, self.data.xipos[self.base])
        self._pushes = (self._base_push, self._tool.push) if self._tool else (self._base_push,)
        self._own_mass, self._own_friction = (
            float(self.model.body_mass[self.base]),
            self.model.geom_friction.copy(),
        )
        self._nominal = {"mass": self._own_mass, "friction": self._own_friction.copy()}
        self._constants: mujoco.MjData | None = None  # what MuJoCo computes a model's constants in
        self.friction: float | None = None  # sliding; None: the robot model's own
        self.extra_mass = 0.0  # kg on the trunk
        self.gains = np.ones(embodiment.num_joints)  # factor on kp and kd
        self.effort = np.ones(embodiment.num_joints)  # factor on the effort limits
        self.payload = np.zeros(4)  # kg, and m from the origin of base or tool, in its frame
        self._payload, self._load = (
            mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, name) for name in (_PAYLOAD, _LOAD)
        )
        self.set_plant(embodiment.plant)
        self.reset()

    # ---- state ----
    def state(self) -> SimulationState:
        """Everything that the physics to come depends on, and what the last step left behind but contacts."""
        data = self.data
        physics = np.empty(mujoco.mj_stateSize(self.model, _PHYSICS))
        mujoco.mj_getState(self.model, data, physics, _PHYSICS)
        return SimulationState(
            physics=physics,
            left={name: getattr(data, name).copy() for name in _LEFT_BY_A_STEP},
            friction=self.friction,
            extra_mass=self.extra_mass,
            gains=self.gains.copy(),
            effort=self.effort.copy(),
            payload=self.payload.copy(),
            terrain=self.terrain.state() if self.terrain else None,
            pushes=tuple(push.state() if push.acts else None for push in self._pushes),
            generator=self.rng.bit_generator.state,
        )

    def restore(self, state: SimulationState) -> None:
        """Continue from a state of this or another simulation of the same embodiment, bit for bit."""
        self.set_friction(state.friction)
        self.set_extra_mass(state.extra_mass)
        self.set_gains(state.gains)
        self.set_effort(state.effort)
        self.set_payload(state.payload[0], state.payload[1:])
        if self.terrain and state.terrain:
            self.terrain.restore(state.terrain)
        mujoco.mj_setState(self.model, self.data, state.physics, _PHYSICS)
        for name, values in state.left.items():
            getattr(self.data, name)[:] = values
        for push, kept in zip(self._pushes, state.pushes, strict=True):
            push.restore(kept)
        self.rng.bit_generator.state = state.generator

    def reset(self, randomise: bool = False) -> None:
        """Default pose, on the ground at the origin; ``randomise`` applies the embodiment's reset noise and a
        random yaw, the latter to a base that can move."""
        spec, rng = self.embodiment.reset, self.rng
        mujoco.mj_resetData(self.model, self.data)
        for push in self._pushes:
            push.restore(None)
        position = self.embodiment.default_position.copy()
        if self.floating and spec.base_height is not None:
            self.data.qpos[2] = spec.base_height + self.ground_height(self.data.qpos[:2])
        if randomise:
            if self.floating:
                yaw = rng.uniform(-np.pi, np.pi)
                self.data.qpos[3:7] = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
            position += rng.uniform(-spec.joint_noise, spec.joint_noise, position.shape)
            position = np.clip(position, self.embodiment.lower, self.embodiment.upper)
            if self.floating:
                self.data.qvel[:6] = rng.uniform(-spec.velocity_noise, spec.velocity_noise, 6)
        self.data.qpos[self.joint_qpos] = position
        settle_couplings(self.model, self.data.qpos)
        self.data.ctrl[self.actuators] = position
        mujoco.mj_forward(self.model, self.data)
        self.settle()

    def settle(self) -> None:
        """Raise or lower the base of a robot that is about to start, so that no foot is inside the ground.

        Without `randomisation.slope`, `step` or `wave` there is nothing to do.
        """
        if self.terrain is None:
            return
        height, own = self.embodiment.reset.base_height, float(self.model.qpos0[2])
        below = np.vstack([self.data.qpos[:2], self.data.geom_xpos[self.feet, :2]])
        self.data.qpos[2] = (own if height is None else height) + self.ground_height(below).max()
        mujoco.mj_forward(self.model, self.data)

    def follow(self) -> None:
        """Have the shaped ground below the robot, wherever it went; called between physics steps, as often as
        decisions at least."""
        if self.terrain is not None:
            self.terrain.follow(self.data.qpos[:2])

    def place(self, position: np.ndarray, orientation_xyzw: np.ndarray, joints: np.ndarray) -> None:
        """Put base (m, xyzw; where it can move) and joints (J,), rad, into a pose, as for drawing it."""
        if self.floating:
            self.data.qpos[:3] = position
            self.data.qpos[3:7] = xyzw_to_wxyz(orientation_xyzw)
        self.data.qpos[self.joint_qpos] = joints
        settle_couplings(self.model, self.data.qpos)
        self.follow()
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    def step(self, targets: np.ndarray) -> None:
        """One physics step under joint position targets (J,), rad."""
        self.data.ctrl[self.actuators] = targets
        for push in self._pushes:
            push.apply()
        mujoco.mj_step(self.model, self.data)

    def play(self, targets: np.ndarray) -> None:
        """As many physics steps as there are rows of targets (n, J), rad, with the result of `step`.

        They are one call of MuJoCo, so that other threads of the interpreter run meanwhile.
        """
        tool = self._tool_push
        if self._base_push.until or (tool and tool.until):  # the force ends, and turns with a tool
            for row in targets:
                self.step(row)
            return
        self._strip.play(np.ascontiguousarray(targets), self._some_actuators)

    @property
    def terrain(self) -> Terrain | None:
        """The ground that episodes shape, where the embodiment's ranges have one."""
        return self._ground if isinstance(self._ground, Terrain) else None

    def _find_ground(self) -> Ground | Terrain | Terrains:
        ranges = self.embodiment.randomisation
        return Terrain(self.model, ranges) if ranges.terrain else super()._find_ground()

    def update_poses(self) -> None:
        """Poses of the present joint positions; a step leaves those from before it."""
        mujoco.mj_kinematics(self.model, self.data)

    def _tool_frame(self) -> tuple[np.ndarray, np.ndarray]:
        self.update_poses()
        return super()._tool_frame()

    def quick_tool_pose(self) -> np.ndarray:
        """`tool_pose` up to rounding, by MuJoCo's functions: arrays of one pose cost ten times as much.

        For those who need not be equal, bit for bit, to one of many robots in arrays.
        """
        position, rotation = self._tool_frame()
        base, result = self.data.xquat[self.base], np.empty(7)
        inverse, turned = self._quaternions
        mujoco.mju_negQuat(inverse, base)
        mujoco.mju_rotVecQuat(result[:3], position - self.data.xpos[self.base], inverse)
        mujoco.mju_mat2Quat(turned, rotation)
        mujoco.mju_mulQuat(turned, inverse, turned)
        result[3:6], result[6] = turned[1:], turned[0]
        return result if result[6] >= 0.0 else np.concatenate([result[:3], -result[3:]])

    # ---- physical parameters ----
    def set_plant(self, plant: PlantSpec) -> None:
        """The machine that all other parameters are meant from.

        Raises ValueError for a mass above 0 where the embodiment's own plant has none.
        """
        joints, nominal = self.embodiment.num_joints, self._nominal
        nominal["friction"] = self._own_friction.copy()
        if plant.friction is not None:
            nominal["friction"][:, 0] = np.where(self._own_friction[:, 0] > 0.0, plant.friction, 0.0)
        nominal["mass"] = self._own_mass + min(plant.mass, 0.0)
        self._kp = self.embodiment.kp * plant.factors("kp", joints)
        self._kd = self.embodiment.kd * plant.factors("kd", joints)
        self._effort = self.embodiment.effort_limit * plant.factors("effort", joints)
        if self._load >= 0:
            self._weigh(self._load, max(plant.mass, 0.0), np.array(plant.mass_offset))
        elif plant.mass > 0.0:
            raise ValueError(f"{self.embodiment.name}: a mass needs plant.mass above 0 in its embodiment")
        self.model.body_mass[self.base] = nominal["mass"] + self.extra_mass
        self.set_friction(self.friction)
        self.set_gains(self.gains)
        self.set_effort(self.effort)
        if plant.mass or self._load >= 0:
            self._update_constants()

    def set_friction(self, sliding: float | None) -> None:
        """Sliding friction of every contact; None restores the robot model's own."""
        self.friction = sliding
        if sliding is None:
            self.model.geom_friction[:] = self._nominal["friction"]
            return
        self.model.geom_friction[:, 0] = np.where(self._nominal["friction"][:, 0] > 0.0, sliding, 0.0)

    @property
    def sliding_friction(self) -> float:
        """Of the contacts, as drawn or the robot model's largest."""
        return float(self.model.geom_friction[:, 0].max())

    def set_extra_mass(self, mass: float) -> None:
        """Mass added to the trunk, kg."""
        if mass == self.extra_mass:
            return
        self.extra_mass = mass
        self.model.body_mass[self.base] = self._nominal["mass"] + mass
        self._update_constants()

    def set_payload(self, mass: float, offset: np.ndarray) -> None:
        """A cube of this mass, kg, whose middle is ``offset`` (3,), m, from base or tool, in its frame.

        Raises ValueError for a mass where the embodiment's ranges have no payload.
        """
        payload = np.array([mass, *offset])
        if np.array_equal(payload, self.payload):
            return
        if self._payload < 0:
            raise ValueError(f"{self.embodiment.name}: a payload needs a range randomisation.payload")
        self.payload = payload
        self._weigh(self._payload, mass, payload[1:])
        self._update_constants()

    def _weigh(self, body: int, mass: float, offset: np.ndarray) -> None:
        """Make a body of `load_model` a cube of this mass, kg, at ``offset`` (3,), m, from base or tool."""
        model = self.model
        place, rotation = np.zeros(3), np.eye(3)
        if self._tool_place and self._tool_place[0] and not self.floating:  # the frame of a site
            site = self._tool_place[1]
            place, rotation = model.site_pos[site], to_matrix(wxyz_to_xyzw(model.site_quat[site]))
        model.body_mass[body] = mass
        model.body_inertia[body] = mass * _PAYLOAD_SIDE**2 / 6.0
        model.body_pos[body] = place + rotation @ offset

    def _update_constants(self) -> None:
        """What MuJoCo derives from masses: without it the centre of mass of the robot is off in proportion to
        its distance from the origin."""
        self._constants = self._constants or mujoco.MjData(self.model)  # dear to make
        mujoco.mj_setConst(self.model, self._constants)

    def set_gains(self, factor: np.ndarray) -> None:
        """PD gains of the joint drives as a factor (J,) on the embodiment's kp and kd."""
        self.gains = np.array(factor, dtype=np.float64)
        kp, kd = self._kp * factor, self._kd * factor
        self.model.actuator_gainprm[self.actuators, 0] = kp
        self.model.actuator_biasprm[self.actuators, 1] = -kp
        self.model.actuator_biasprm[self.actuators, 2] = -kd

    def set_effort(self, factor: np.ndarray) -> None:
        """Effort limits of the joint drives as a factor (J,) on the embodiment's."""
        self.effort = np.array(factor, dtype=np.float64)
        limit = self._effort * self.effort
        self.model.actuator_forcerange[self.actuators] = np.stack([-limit, limit], axis=1)

    def set_force(self, body: str, force: np.ndarray) -> None:
        """External force (3,), N, world frame, at a body's centre of mass, until it is set anew or reset."""
        self.data.xfrc_applied[self._id(mujoco.mjtObj.mjOBJ_BODY, body), :3] = force

    def push(self, velocity: np.ndarray) -> None:
        """Instant change of the base's horizontal velocity (2,), m/s, world frame."""
        self.data.qvel[:2] += velocity

    def push_base(self, force: np.ndarray, seconds: float) -> None:
        """Force (3,), N, world frame, at the trunk's centre of mass from now on for ``seconds``."""
        self._base_push.begin(force, seconds)

    @property
    def base_force(self) -> np.ndarray:
        """The force (3,), N, world frame, of `push_base`; zero where none acts."""
        return self._base_push.force

    def push_tool(self, force: np.ndarray, seconds: float) -> None:
        """Force (3,), N, world frame, on the tool from now on for ``seconds``."""
        if self._tool:
            self._tool.push.begin(force, seconds)

    def show_goal(self, pose: np.ndarray) -> None:
        """Put the model's goal marker at a pose (7,) in the base frame, where it has one; it is seen only."""
        if self._tool:
            self._tool.show_goal(pose, *self.base_pose())


def _read_joints(readings: Readings) -> dict[str, np.ndarray]:
    return {
        "position": readings.joint_position(),
        "velocity": readings.joint_velocity(),
        "effort": readings.joint_effort(),
    }


def _read_imu(readings: Readings) -> dict[str, np.ndarray]:
    orientation, angular_velocity, acceleration = readings.imu()
    return {
        "orientation": orientation,
        "angular_velocity": angular_velocity,
        "acceleration": acceleration,
    }


READERS: dict[str, Callable[[Readings], dict[str, np.ndarray]]] = {
    "joints": _read_joints,
    "imu": _read_imu,
}
"""For each source that is simulated, how it is read; a row of `robots.terms.SOURCES` says what it holds."""

TOGETHER = frozenset({"joints", "imu"})
"""Sources whose readers also read many robots at once; those of others are called robot by robot."""
