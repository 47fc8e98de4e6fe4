"""The robot model of an embodiment as MuJoCo compiles it, and its drives as the embodiment means them.

An embodiment's joint has one drive: torque kp * (target - position) - kd * velocity within its effort limit.
An MJCF of one's own may drive its joints otherwise; what can be made such a drive is, all else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.errors import UserError


def compile_model(
    model: Path | str, where: Path | str = "", assets: Mapping[str, bytes] | None = None
) -> mujoco.MjModel:
    """An MJCF file, or the text of one with its meshes as `assets`, as MuJoCo reads it.

    Raises:
        UserError: it does not; the sentence begins with `where`, by default the file.
    """
    try:
        if isinstance(model, Path):
            return mujoco.MjModel.from_xml_path(str(model))
        return mujoco.MjModel.from_xml_string(model, dict(assets or {}))
    except (ValueError, TypeError, mujoco.FatalError, mujoco.UnexpectedError) as problem:
        reason = " ".join(str(problem).split())
        raise UserError(f"{where or model}: MuJoCo cannot read it: {reason}") from None


def find_drives(model: mujoco.MjModel, joints: Sequence[int], where: Path) -> NDArray[np.intp]:
    """The actuators of these joints (J,): position or motor actuators. What acts on none of them is let be.

    Raises:
        UserError: a joint has no actuator or several, or one that is neither; the sentence names it.
    """
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_ACTUATION:
        raise UserError(f"{where}: <flag actuation='disable'/> switches every drive off; take it out")
    found: dict[int, int] = {}
    for actuator in range(model.nu):
        acted = _joints_of(model, actuator)
        mine = next((joint for joint in acted if joint in joints), None)
        if mine is None:
            continue
        name, joint = repr(model.actuator(actuator).name or f"number {actuator}"), model.joint(mine).name
        if len(acted) > 1 or not _on_joint(model, actuator):
            raise UserError(
                f"{where}: actuator {name} acts on joint {joint!r} by a transmission of its own; give the "
                "joint a position actuator, or leave it out of joints.list"
            )
        if mine in found:
            raise UserError(
                f"{where}: joint {joint!r} has several actuators, {name} among them; leave one "
                "position actuator"
            )
        problem = _unlike_a_drive(model, actuator)
        if problem:
            raise UserError(
                f"{where}: actuator {name} of joint {joint!r} {problem}; give a position or motor actuator"
            )
        found[mine] = actuator
    for index in joints:
        if index not in found:
            raise UserError(f"{where}: no position actuator for joint {model.joint(index).name!r}")
    return np.array([found[index] for index in joints], dtype=np.intp)


def _joints_of(model: mujoco.MjModel, actuator: int) -> list[int]:
    """Joints that an actuator acts on directly or by a fixed tendon."""
    kind, target = model.actuator_trntype[actuator], int(model.actuator_trnid[actuator, 0])
    if _on_joint(model, actuator):
        return [target]
    if kind == mujoco.mjtTrn.mjTRN_TENDON:
        start = model.tendon_adr[target]
        parts = range(start, start + model.tendon_num[target])
        fixed = [part for part in parts if model.wrap_type[part] == mujoco.mjtWrap.mjWRAP_JOINT]
        return [int(model.wrap_objid[part]) for part in fixed]
    return []


def _on_joint(model: mujoco.MjModel, actuator: int) -> bool:
    kinds = mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT
    return model.actuator_trntype[actuator] in kinds


def _unlike_a_drive(model: mujoco.MjModel, actuator: int) -> str:
    """What keeps an actuator from being a position drive; empty where nothing does."""
    gain, bias = model.actuator_gainprm[actuator], model.actuator_biasprm[actuator]
    group = int(model.actuator_group[actuator])
    if model.opt.disableactuator & (1 << group):
        return f"is switched off: its group {group} is in actuatorgroupdisable"
    joint = model.actuator_trnid[actuator, 0]
    if model.jnt_type[joint] not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
        return "turns a joint that is neither hinge nor slide"
    if model.actuator_dyntype[actuator] != mujoco.mjtDyn.mjDYN_NONE:
        kind = mujoco.mjtDyn(model.actuator_dyntype[actuator]).name.removeprefix("mjDYN_").lower()
        return f"has a state of its own (dyntype {kind})"
    if model.actuator_delay[actuator] or model.actuator_plugin[actuator] >= 0:
        return "has a delay or a plug-in"
    if model.actuator_gaintype[actuator] != mujoco.mjtGain.mjGAIN_FIXED or gain[0] <= 0.0:
        return "has a gain that is not a fixed number above 0"
    motor = model.actuator_biastype[actuator] == mujoco.mjtBias.mjBIAS_NONE
    affine = model.actuator_biastype[actuator] == mujoco.mjtBias.mjBIAS_AFFINE
    if motor or (affine and not bias[0] and np.isclose(bias[1], -gain[0])):
        return ""
    if affine and not bias[1]:
        return "follows a velocity"
    return "has a bias that is not that of a position drive"


def make_position_drives(model: mujoco.MjModel, actuators: NDArray[np.intp]) -> None:
    """Make what `find_drives` found drives whose gains and limit are then to be set.

    They act on the joint's own position, have no range of the control, and alone limit their force.
    """
    model.actuator_biastype[actuators] = mujoco.mjtBias.mjBIAS_AFFINE
    model.actuator_ctrllimited[actuators] = 0  # targets keep the embodiment's limits
    model.actuator_forcelimited[actuators] = 1
    model.jnt_actfrclimited[model.actuator_trnid[actuators, 0]] = 0
    if np.any(model.actuator_gear[actuators, 0] != 1.0):
        model.actuator_gear[actuators, 0] = 1.0
        mujoco.mj_setConst(model, mujoco.MjData(model))


def couplings(model: mujoco.MjModel) -> list[tuple[int, int, NDArray[np.float64]]]:
    """Joints that follow others by an equality: places in qpos of follower and leader, polynomial (5,)."""
    found = []
    for index in np.flatnonzero(model.eq_type == mujoco.mjtEq.mjEQ_JOINT):
        follower, leader = model.eq_obj1id[index], model.eq_obj2id[index]
        if leader >= 0 and model.eq_active0[index]:
            places = model.jnt_qposadr[[follower, leader]]
            found.append((int(places[0]), int(places[1]), model.eq_data[index, :5].copy()))
    return found


def settle_couplings(model: mujoco.MjModel, qpos: NDArray[np.float64]) -> None:
    """Put the joints that follow others where those are, also where one follows a follower."""
    pairs = couplings(model)
    for _ in pairs:
        for follower, leader, factors in pairs:
            offset = qpos[leader] - model.qpos0[leader]
            qpos[follower] = model.qpos0[follower] + np.polynomial.polynomial.polyval(offset, factors)


def check_ground(model: mujoco.MjModel, base: int, where: Path) -> None:
    """Raise UserError when a base that moves freely has nothing under it that it can touch."""
    if model.opt.gravity[2] >= 0.0:
        return
    robot = np.flatnonzero(model.body_rootid[model.geom_bodyid] == model.body_rootid[base])
    floor = _floor(model, robot)
    paired = {frozenset((int(a), int(b))) for a, b in zip(model.pair_geom1, model.pair_geom2, strict=True)}
    for world in floor:
        ours = (model.geom_contype[robot] & model.geom_conaffinity[world]) | (
            model.geom_contype[world] & model.geom_conaffinity[robot]
        )
        if ours.any() or any(frozenset((int(world), int(geom))) in paired for geom in robot):
            return
    reason = "touch: contype and conaffinity keep them apart" if len(floor) else "stand on"
    raise UserError(
        f"{where}: the base moves freely and there is no ground under it that it could {reason}; add <geom "
        'name="ground" type="plane" size="0 0 0.05"/> to <worldbody>, or name the scene file that has one'
    )


def _floor(model: mujoco.MjModel, robot: NDArray[np.intp]) -> NDArray[np.intp]:
    """Geoms of the world that a ray downwards from above the origin meets, or planes that face up."""
    still = model.body_weldid[model.geom_bodyid] == 0
    found = []
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    for geom in np.flatnonzero(still):
        matrix, place = data.geom_xmat[geom].reshape(3, 3), data.geom_xpos[geom]
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE:
            below = matrix[2, 2] > 1e-3  # others are walls
        else:  # within its bounding box, seen from above
            half = np.abs(matrix) @ model.geom_aabb[geom, 3:]
            centre = place + matrix @ model.geom_aabb[geom, :3]
            at = data.xpos[model.geom_bodyid[robot[0]]] if len(robot) else np.zeros(3)
            below = bool(np.all(np.abs(at - centre)[:2] <= half[:2]))
        if below:
            found.append(geom)
    return np.array(found, dtype=np.intp)
