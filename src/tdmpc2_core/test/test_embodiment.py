"""The embodiment file: shipped robots, round trips, fingerprint, and what refusals say."""

from __future__ import annotations

import dataclasses
import json
import pickle

import mujoco
import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose, assert_array_equal
from small_robot import small_mapping, small_robot

from tdmpc2_core.config import apply_overrides
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment, shipped_names


def write(folder, mapping, model="small.xml"):
    file = folder / "embodiment.yaml"
    file.write_text(yaml.safe_dump(mapping))
    if model:
        (folder / model).write_text("<mujoco/>")
    return file


def test_every_shipped_robot_agrees_with_its_model_file():
    assert "quadruped" in shipped_names()
    for name in shipped_names():
        robot = Embodiment.load(name)
        model = mujoco.MjModel.from_xml_path(str(robot.model_path))
        assert robot.name == name
        for joint in robot.joints:
            assert_allclose(model.joint(joint.name).range, [joint.lower, joint.upper], atol=1e-3)


def test_quadruped_sizes():
    robot = Embodiment.load("quadruped")
    assert robot.num_joints == robot.action_dim == 12
    assert robot.observation_dim == 5 * (3 + 3 + 12 + 12) + 12 + 3 + 2
    assert robot.control_period == pytest.approx(0.02) and robot.physics_steps == 5
    assert robot.joint_names[:3] == ("FL_hip_joint", "FL_thigh_joint", "FL_calf_joint")
    assert robot.effort_limit[2] == 45.43 and robot.effort_limit[0] == 23.7


def test_arrays_follow_the_joint_order_and_cannot_be_changed():
    robot = small_robot()
    assert_array_equal(robot.default_position, [0.1, -1.5])
    assert_array_equal(robot.effort_limit, [5.0, 8.0])
    assert robot.kp.dtype == np.float64
    for name in ("default_position", "lower", "upper", "velocity_limit", "kp", "kd", "action_scale"):
        with pytest.raises(ValueError):
            getattr(robot, name)[0] = 9.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        robot.name = "other"


def test_layout():
    blocks = {b.name: (b.start, b.stop, b.size, b.history) for b in small_robot().observation_layout}
    assert blocks["gyro"] == (0, 6, 3, 2) and blocks["joint_position"] == (12, 16, 2, 2)
    assert blocks["command"] == (24, 26, 2, 1) and blocks["gait_phase"] == (26, 28, 2, 1)
    assert small_robot().observation_dim == 28


def test_load_from_directory_and_file(tmp_path):
    file = write(tmp_path, small_mapping())
    assert Embodiment.load(tmp_path) == Embodiment.load(str(file)) == small_robot()
    assert Embodiment.load(tmp_path).model_path == (tmp_path / "small.xml").resolve()


@pytest.mark.parametrize("robot", [small_robot(), Embodiment.load("quadruped")], ids=lambda robot: robot.name)
def test_round_trips(robot):
    again = Embodiment.from_dict(json.loads(json.dumps(robot.to_dict())))
    assert again == robot and again.fingerprint == robot.fingerprint and hash(again) == hash(robot)
    assert Embodiment.from_dict(yaml.safe_load(yaml.safe_dump(robot.to_dict()))) == robot
    assert pickle.loads(pickle.dumps(robot)) == robot


def test_training_sections_reach_their_specs():
    robot = small_robot(
        reward={"terms": [{"name": "upright", "weight": -2, "sigma": 0.5}]},
        randomisation={"gain": [0.9, 1.1]},
    )
    assert robot.reward.terms[0].params == {"sigma": 0.5} and robot.reward.terms[0].weight == -2.0
    assert robot.randomisation.gain == (0.9, 1.1) and robot.randomisation.push_interval is None
    assert robot.termination.max_tilt is None and robot.demonstration is None


def test_overrides_keep_the_model_file():
    robot = apply_overrides(
        Embodiment.load("quadruped"), ["safety.max_target_rate=5", "joints.FL_hip_joint.kp=9"]
    )
    assert robot.safety.max_target_rate == 5.0 and robot.kp[0] == 9.0 and robot.kp[1] != 9.0
    assert robot.model_path.is_file()


def changed(path, value):
    """The small robot's fingerprint after one change in its mapping."""
    mapping = small_mapping()
    target = mapping
    for key in path[:-1]:
        target = target.setdefault(key, {}) if isinstance(target, dict) else target[key]
    target[path[-1]] = value
    return Embodiment.from_dict(mapping).fingerprint


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("control_rate",), 100.0),
        (("joints", "list", 0, "name"), "hip2"),
        (("joints", "list", 0, "default"), 0.2),
        (("joints", "list", 1, "action_scale"), 1.0),
        (("joints", "defaults", "kp"), 11.0),
        (("observation", "history"), 3),
        (("observation", "terms", 0, "scale"), 1.0),
        (("action",), {"interpolation": "step"}),
        (("command", "deadband"), 0.2),
        (("clock", "frequency"), 2.0),
    ],
)
def test_fingerprint_changes_with_what_a_policy_depends_on(path, value):
    assert changed(path, value) != small_robot().fingerprint


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("task",), "other words"),
        (("observation", "terms", 0, "noise"), 0.3),
        (("observation", "terms", 0, "max_age"), 0.3),
        (("command", "timeout"), 1.0),
        (("safety", "max_target_rate"), 3.0),
        (("episode_seconds",), 5.0),
        (("joints", "list", 0, "kp"), 10),  # the default, written out and as a whole number
    ],
)
def test_fingerprint_ignores_the_rest(path, value):
    assert changed(path, value) == small_robot().fingerprint


HIP = ("joints", "list", 0)
TERM = ("observation", "terms", 0)


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        (("colour",), "red", ["unknown key 'colour'", "control_rate"]),
        (("contrl_rate",), 3, ["'contrl_rate'", "did you mean 'control_rate'"]),
        (("format",), 2, ["format", "one of 1"]),
        (("name",), "../up", ["name must hold letters, digits", "'../up'"]),
        (("name",), "two\nlines", ["name must hold letters, digits"]),
        ((*HIP, "defalt"), 0.1, ["joints.list[0]", "'defalt'", "did you mean 'default'"]),
        ((*HIP, "name"), "knee", ["knee more than once"]),
        ((*HIP, "default"), 1.5, ["joints.list[0]", "default of 'hip'", "[-1, 1]", "1.5"]),
        ((*HIP, "lower"), 1.0, ["joints.list[0]", "lower of 'hip' must be below upper"]),
        ((*HIP, "action_scale"), 0.0, ["joints.list[0].action_scale", "greater than 0 rad"]),
        ((*HIP, "effort"), -1, ["joints.list[0].effort", "greater than 0 N m"]),
        ((*HIP, "kp"), float("nan"), ["joints.list[0].kp", "not finite"]),
        ((*HIP, "upper"), "1 rad", ["joints.list[0].upper", "a number (rad)", "'1 rad'"]),
        (("joints", "defaults", "gain"), 1, ["joints.defaults", "'gain'", "kp, kd"]),
        (("joints", "list"), [], ["at least one joint"]),
        (("joints",), ["hip"], ["joints", "keys defaults and list"]),
        (("joints", "lst"), [], ["joints", "unknown key 'lst'", "defaults, list"]),
        (("control_rate",), 0, ["control_rate", "greater than 0 Hz"]),
        (("physics_rate",), 225.0, ["physics_rate", "whole multiple of control_rate (50 Hz)", "225"]),
        (("physics_rate",), 25.0, ["physics_rate", "whole multiple"]),
        ((*TERM, "name"), "gyroscope", ["observation.terms[0].name", "gyro, gravity", "did you mean 'gyro'"]),
        ((*TERM, "source"), "lidar", ["observation.terms[0].source", "imu, joints, command, self"]),
        ((*TERM, "source"), "joints", ["observation.terms[0]", "source of gyro must be imu"]),
        ((*TERM, "scale"), 0, ["observation.terms[0].scale", "greater than 0"]),
        ((*TERM, "max_age"), None, ["observation.terms[0]", "gyro needs max_age"]),
        ((*TERM, "name"), "gravity", ["observation", "gravity more than once"]),
        (("observation", "terms"), [], ["observation", "at least one of gyro"]),
        (("observation", "history"), 0, ["observation.history", "at least 1"]),
        (("observation", "terms", 4, "max_age"), 1.0, ["previous_action must not have max_age"]),
        (("action",), {"interpolation": "cubic"}, ["action.interpolation", "linear, step", "cubic"]),
        (("action",), {"kind": "torque"}, ["action.kind", "position", "torque"]),
        (("command",), None, ["has command", "needs the key 'command'"]),
        (("clock",), None, ["has gait_phase", "needs the key 'clock'"]),
        (("imu_frame",), None, ["needs the key 'imu_frame'"]),
        (("command", "terms", 0, "name"), "linaer_x", ["command.terms[0].name", "did you mean 'linear_x'"]),
        (("command", "terms", 0, "lower"), 0.5, ["command.terms[0]", "must hold 0"]),
        (("command", "terms"), [], ["command", "at least one"]),
        (("clock", "feet"), ["a", "b"], ["clock", "offsets must hold 2 values"]),
        (("safety", "position_margin"), 1.2, ["position_margin", "'hip'", "at most 0.9"]),
        (("safety", "max_effort_fraction"), 1.2, ["safety.max_effort_fraction", "at most 1"]),
        (("randomisation",), {"gain": [1.1, 0.9]}, ["randomisation", "gain must be [lowest, highest]"]),
        (
            ("reward",),
            {"terms": [{"name": "a", "weight": 1, "sigma": "x"}]},
            ["reward.terms[0].sigma", "a number"],
        ),
    ],
)
def test_refusals_name_file_key_and_what_is_right(tmp_path, path, value, parts):
    mapping = small_mapping()
    target = mapping
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(UserError) as caught:
        Embodiment.load(write(tmp_path, mapping))
    text = str(caught.value)
    assert text.startswith(str(tmp_path / "embodiment.yaml"))
    assert all(part in text for part in parts), text


def test_missing_keys_are_named():
    for key in ("name", "model", "joints", "observation", "control_rate"):
        mapping = small_mapping()
        del mapping[key]
        with pytest.raises(UserError, match=f"'{key}' is missing"):
            Embodiment.from_dict(mapping)


def test_missing_model_file_and_unknown_robot(tmp_path):
    with pytest.raises(UserError, match="model: no file 'small.xml'"):
        Embodiment.load(write(tmp_path, small_mapping(), model=None))
    with pytest.raises(UserError, match="did you mean 'quadruped'"):
        Embodiment.load("quadrupd")
    with pytest.raises(UserError, match="embodiment.yaml: no such file"):
        Embodiment.load(tmp_path.parent)
    with pytest.raises(UserError, match="no model file"):
        _ = small_robot().model_path
