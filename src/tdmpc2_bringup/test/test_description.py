"""URDF and MJCF are one robot, for every backend; a difference is noticed; generated files are current."""

import math
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest
from description_checks import description_problems
from stock_controllers import Limiter, limiter_of
from workspace_support import SOURCE

from tdmpc2_bringup.description import Backend, hardware_parameters, robot_description
from tdmpc2_bringup.generate import files
from tdmpc2_bringup.robot_files import RobotFiles
from tdmpc2_bringup.settings import Settings
from tdmpc2_core.descriptions import urdf_text
from tdmpc2_core.descriptions.from_urdf import import_urdf
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment, shipped_names

SHARE = SOURCE / "tdmpc2_bringup"
BACKENDS = {
    "mujoco": Backend("mujoco", mujoco_model="robot.xml"),
    "gazebo": Backend("gazebo", namespace="one", command_interface="effort", controllers_file="c.yaml"),
    "mock": Backend("mock"),
    "none": Backend("none", hardware_plugin="maker_hardware/System"),
}
PLUGINS = {
    "mujoco": "mujoco_ros2_control/MujocoSystemInterface",
    "gazebo": "gz_ros2_control/GazeboSimSystem",
    "mock": "mock_components/GenericSystem",
    "none": "maker_hardware/System",
}


def source(robot: str) -> Path:
    return SHARE / "urdf" / f"{robot}.urdf.xacro"


@pytest.mark.parametrize("robot", shipped_names())
def test_generated_files_are_what_the_embodiments_give(robot):
    for name, text in files(robot).items():
        assert (SHARE / name).read_text(encoding="utf-8") == text, "run python -m tdmpc2_bringup.generate"


@pytest.mark.parametrize("sim", BACKENDS)
@pytest.mark.parametrize("robot", shipped_names())
def test_urdf_and_mjcf_are_one_robot(robot, sim):
    text = robot_description(source(robot), BACKENDS[sim])
    assert description_problems(text, Embodiment.load(robot)) == []
    assert ElementTree.fromstring(text).findtext("ros2_control/hardware/plugin") == PLUGINS[sim]


@pytest.mark.parametrize("robot", shipped_names())
def test_prefix_goes_before_every_name(robot):
    text = robot_description(source(robot), Backend("gazebo", prefix="left_"))
    assert description_problems(text, Embodiment.load(robot), "left_") == []
    names = [each.get("name") for each in ElementTree.fromstring(text) if each.tag in ("link", "joint")]
    assert all(name.startswith("left_") or name == "world" for name in names)


@pytest.mark.parametrize("robot", shipped_names())
def test_mujoco_reads_the_urdf(robot, tmp_path):
    (tmp_path / "robot.urdf").write_text(robot_description(source(robot), Backend()))
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "robot.urdf"))
    assert {model.joint(i).name for i in range(model.njnt)} >= set(Embodiment.load(robot).joint_names)


@pytest.mark.parametrize(
    ("text", "broken", "problem"),
    [
        ('joint name="RR_calf_joint" type', 'joint name="RR_calf" type', "no joint RR_calf_joint"),
        ('lower="-2.8227"', 'lower="-2.9"', "lower is -2.9"),
        ('axis xyz="1 0 0"', 'axis xyz="-1 0 0"', "forward kinematics differ"),
        ('xyz="0.1934 0.0465 0"', 'xyz="0.1934 0.0465 0.00001"', "forward kinematics differ"),
        ('mass value="0.154"', 'mass value="0.155"', "mass, centre of mass or inertia"),
        ('izz="0.107"', 'izz="0.108"', "total mass or inertia"),
        ('child link="FL_foot"', 'child link="FL_calf"', "not one tree"),
        (
            'joint name="FL_hip_joint">\n      <command',
            'joint name="FL_hip">\n      <command',
            "ros2_control",
        ),
        ("<collision>FL_foot_collision</collision>", "<collision>FL</collision>", "contact sensor of FL"),
        ('gazebo reference="imu_link"', 'gazebo reference="imu"', "gazebo refers to imu"),
    ],
)
def test_a_difference_is_noticed(text, broken, problem):
    original = robot_description(source("quadruped"), Backend("gazebo"))
    assert text in original
    problems = description_problems(original.replace(text, broken), Embodiment.load("quadruped"))
    assert any(problem in each for each in problems), problems


@pytest.mark.parametrize("maker", [False, True])
def test_a_joint_past_its_stop_does_not_end_the_controller(tmp_path, maker):
    """A knee was measured at -0.098 rad with its limit at -0.087; the limiter throws 0.0087 rad outside."""
    robot, settings = Embodiment.load("humanoid"), Settings(sim="mock")
    if maker:  # a URDF of the robot's maker, with the limits that the planner keeps
        (tmp_path / "maker.urdf").write_text(urdf_text(robot))
        settings = Settings(sim="mock", description_file=str(tmp_path / "maker.urdf"))
    root = ElementTree.fromstring(RobotFiles("humanoid", settings, SHARE, tmp_path).description())
    knee = robot.joint_names.index("left_knee_joint")
    measured = np.array(robot.default_position)
    measured[knee] = -0.098
    narrow = Limiter(robot.lower, robot.upper, np.array([joint.velocity for joint in robot.joints]))
    for limiter, throws in ((narrow, True), (limiter_of(root, robot.joint_names), False)):
        limiter.enforce(measured, measured, 0.002)
        assert limiter.throws is throws


def test_mock_hardware_measures_a_level_robot_at_rest():
    """Mock sensors without initial values publish NaN; velocities stay zero without dynamics."""
    root = ElementTree.fromstring(robot_description(source("quadruped"), Backend("mock")))
    control = root.find("ros2_control")
    assert control.find("hardware/param[@name='calculate_dynamics']").text == "true"
    initial = {
        each.get("name"): float(each.findtext("param[@name='initial_value']"))
        for each in control.iterfind("sensor/state_interface")
    }
    assert len(initial) == 10
    assert math.isclose(sum(v**2 for k, v in initial.items() if k.startswith("orientation")), 1.0)
    assert initial["linear_acceleration.z"] == pytest.approx(9.81, abs=0.01)
    for joint in Embodiment.load("quadruped").joints:
        state = control.find(f"joint[@name='{joint.name}']/state_interface[@name='position']/param")
        assert float(state.text) == joint.default


def test_hardware_gets_its_parameters():
    given = hardware_parameters("robot_ip=10.0.0.2 rate=500")
    backend = Backend("none", hardware_plugin="maker/System", hardware_parameters=given)
    root = ElementTree.fromstring(robot_description(source("quadruped"), backend))
    assert root.find("ros2_control/hardware/param[@name='robot_ip']").text == "10.0.0.2"
    with pytest.raises(UserError, match="robot_ip"):
        hardware_parameters("robot_ip 10.0.0.2")


def test_a_mistake_in_a_description_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        robot_description(tmp_path / "robot.xacro", Backend())
    broken = tmp_path / "broken.xacro"
    broken.write_text('<robot xmlns:xacro="http://www.ros.org/wiki/xacro"><link name="${nothing}"/></robot>')
    with pytest.raises(UserError, match="broken.xacro: xacro refuses it") as caught:
        robot_description(broken, Backend())
    assert "\n" not in str(caught.value)


def test_the_prefix_reaches_the_mujoco_model(tmp_path):
    robot = RobotFiles("quadruped", Settings(prefix="left_"), SHARE, tmp_path)
    model = mujoco.MjModel.from_xml_path(robot.mjcf)
    assert [model.joint(i).name for i in range(1, model.njnt)] == [
        f"left_{name}" for name in robot.embodiment.joint_names
    ]
    assert model.nu == 12


def test_the_command_line_tool_reads_the_files():
    tool = shutil.which("xacro")
    assert tool, "xacro is not on PATH"
    command = [tool, str(source("quadruped")), "sim:=mock", "prefix:=b_"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert description_problems(result.stdout, Embodiment.load("quadruped"), "b_") == []
    assert result.stderr == ""


GRIPPER = """
<robot name="gripper"><link name="palm"/>
  {}
</robot>"""
FINGER = """
  <link name="{0}"><inertial><mass value="0.1"/>
    <inertia ixx="1e-4" ixy="0" ixz="0" iyy="1e-4" iyz="0" izz="1e-4"/></inertial></link>
  <joint name="{0}_slide" type="prismatic"><parent link="palm"/><child link="{0}"/><axis xyz="0 {1} 0"/>
    <limit lower="0" upper="0.04" effort="20" velocity="0.2"/>{2}</joint>"""


@pytest.mark.parametrize("sim", BACKENDS)
def test_a_joint_that_mimics_has_states_only(sim, tmp_path):
    """controller_manager refuses a command interface of a joint with <mimic>; a plug-in may not report it."""
    follower = FINGER.format("right", -1, '<mimic joint="left_slide"/>')
    (tmp_path / "g.urdf").write_text(GRIPPER.format(FINGER.format("left", 1, "") + follower))
    import_urdf(tmp_path / "g.urdf", tmp_path / "gripper", fixed=True)
    settings = Settings(sim=sim, prefix="a_", hardware_plugin="maker_hardware/System")
    files = RobotFiles(str(tmp_path / "gripper"), settings, SHARE, tmp_path / "made")
    root = ElementTree.fromstring(files.description())
    found = {
        joint.get("name"): [part.tag for part in joint if part.tag.endswith("interface")]
        for joint in root.iterfind("ros2_control/joint")
    }
    assert "command_interface" in found["a_left_slide"]
    assert found.get("a_right_slide") == (None if sim == "none" else ["state_interface"] * 2)
    assert root.find("joint[@name='a_right_slide']/mimic").get("joint") == "a_left_slide"
    model = mujoco.MjModel.from_xml_path(files.mjcf)
    assert {model.joint(index).name for index in range(model.njnt)} == {"a_left_slide", "a_right_slide"}
