"""An MJCF of one's own: drives become the embodiment's or are refused by name, a base needs ground."""

import mujoco
import numpy as np
import pytest
import yaml

from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.envs.robot.fleet import Fleet
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment

LIMIT = 12.0  # N m
GROUND = '<geom name="ground" type="plane" size="0 0 0.1"/>'
ARM = '<position name="one" joint="shoulder" kp="50"/><position name="two" joint="elbow" kp="50"/>'
MJCF = """
<mujoco><compiler angle="radian" autolimits="true"/><option integrator="implicitfast"/>
  <worldbody>{ground}
    <body name="base" pos="0 0 {height}">{free}
      <geom type="box" size="0.2 0.2 0.05" mass="4" {touch}/>
      <body name="upper" pos="0 0 0.05">
        <joint name="shoulder" axis="0 1 0" range="-2 2" armature="0.01" {limits}/>
        <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="0.5" contype="0" conaffinity="0"/>
        <body name="lower" pos="0.3 0 0">
          <joint name="elbow" axis="0 1 0" range="-2 2" armature="0.01"/>
          <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.02" mass="0.3" contype="0" conaffinity="0"/>
          <body name="finger" pos="0.2 0 0">
            <joint name="grip" type="slide" axis="0 1 0" range="0 0.05" armature="0.01"/>
            <geom type="box" size="0.01 0.01 0.02" mass="0.02" contype="0" conaffinity="0"/>
          </body>
        </body>
      </body>
    </body>{more}
  </worldbody>
  {parts}
  <actuator>{actuators}</actuator>
</mujoco>"""
JOINT = {"default": 0.4, "lower": -2.0, "upper": 2.0, "action_scale": 0.5, "kp": 60.0, "kd": 3.0}
EMBODIMENT = {
    "format": 1,
    "name": "reacher",
    "model": "reacher.xml",
    "control_rate": 50.0,
    "physics_rate": 500.0,
    "base_frame": "base",
    "joints": {
        "defaults": {**JOINT, "velocity": 10.0, "effort": LIMIT},
        "list": [{"name": "shoulder"}, {"name": "elbow"}],
    },
    "observation": {"terms": [{"name": "joint_position", "source": "joints", "max_age": 0.1}]},
    "reward": {"terms": [{"name": "stand_pose", "weight": -1.0}]},
}


@pytest.fixture
def robot(tmp_path):
    """The two-joint arm, on a box that lies on the ground where `free`, with other actuators or parts."""

    def robot(actuators=ARM, free=False, ground=GROUND, height=0.05, touch="", limits="", parts="", more=""):
        joint = "<freejoint/>" if free else ""
        text = MJCF.format(
            actuators=actuators,
            free=joint,
            ground=ground,
            height=height,
            touch=touch,
            limits=limits,
            parts=parts,
            more=more,
        )
        (tmp_path / "reacher.xml").write_text(text)
        (tmp_path / "embodiment.yaml").write_text(yaml.safe_dump(EMBODIMENT))
        return Embodiment.load(tmp_path)

    return robot


def played(simulation: Simulation, targets: np.ndarray, steps: int = 400) -> np.ndarray:
    """Positions and torques over time, (steps, 4)."""
    rows = []
    for _ in range(steps):
        simulation.step(targets)
        rows.append([*simulation.joint_position(), *simulation.joint_effort()])
    return np.array(rows)


CONVERTED = {
    "motor": '<motor name="one" joint="shoulder"/><motor name="two" joint="elbow" ctrlrange="-1 1"/>',
    "geared motor": '<motor joint="shoulder" gear="40"/><motor joint="elbow" gear="-7"/>',
    "geared position": '<position joint="shoulder" kp="3" gear="5"/>'
    '<position joint="elbow" kp="9" gear="2"/>',
    "general": '<general joint="shoulder" gainprm="80" biastype="affine" biasprm="0 -80 -2"/>'
    '<general joint="elbow"/>',
    "other order": '<motor name="two" joint="elbow"/><motor name="one" joint="shoulder"/>',
    "force range without its flag": '<position joint="shoulder" forcelimited="false" forcerange="-1 1"/>'
    '<motor joint="elbow" forcelimited="false"/>',
    "narrow ranges": '<position joint="shoulder" ctrlrange="0 0.1" forcerange="-1 1"/>'
    '<position joint="elbow" ctrlrange="0 0.1" forcerange="-1 1"/>',
    "in the parent": '<motor jointinparent="shoulder"/><motor jointinparent="elbow"/>',
    "beside a gripper": ARM + '<motor name="grip" joint="grip"/>',
}


@pytest.mark.parametrize("actuators", CONVERTED.values(), ids=CONVERTED)
def test_drives_of_any_kind_move_as_the_embodiments_do(robot, actuators):
    """Bit for bit as position actuators with the embodiment's gains do, which MuJoCo itself computes."""
    drive = f'kp="60" kv="3" forcerange="{-LIMIT} {LIMIT}"'
    plain = f'<position joint="shoulder" {drive}/><position joint="elbow" {drive}/>'
    model = mujoco.MjModel.from_xml_path(str(robot(plain).model_path))
    model.opt.timestep = 1 / 500
    data = mujoco.MjData(model)
    data.qpos[:2] = 0.4
    wanted, targets = [], np.array([-1.5, 1.9])
    for _ in range(400):
        data.ctrl[:] = targets
        mujoco.mj_step(model, data)
        wanted.append([*data.qpos[:2], *data.actuator_force])
    limits = 'actuatorfrcrange="-2 2"' if "frc" in actuators else ""
    found = played(Simulation(robot(actuators, limits=limits)), targets)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
    assert np.abs(found[:, 2:]).max() == LIMIT


def test_a_limit_at_the_joint_does_not_hide_in_the_efforts(robot):
    simulation = Simulation(robot(limits='actuatorfrcrange="-0.1 0.1"'))
    played(simulation, np.array([0.4, 0.4]))
    assert simulation.joint_position()[0] == pytest.approx(0.4, abs=0.15)


def test_many_robots_share_the_converted_model(robot):
    """A fleet looks for the drives once more, in a model whose drives have the embodiment's gains already."""
    embodiment = robot(CONVERTED["motor"])
    fleet = Fleet([Simulation(embodiment), Simulation(embodiment)])
    assert fleet.actuators.tolist() == [0, 1]
    assert fleet.model.actuator_gainprm[:, 0].tolist() == [60.0, 60.0]


def test_a_gripper_beside_the_arm_is_let_be(robot):
    """An actuator on a tendon has an index of its own kind, here that of the shoulder."""
    tendon = '<tendon><fixed name="pinch"><joint joint="grip" coef="1"/></fixed></tendon>'
    grip = '<position name="pinch" tendon="pinch" kp="100" ctrlrange="0 0.05"/>'
    simulation = Simulation(robot(grip + ARM, parts=tendon))
    assert simulation.actuators.tolist() == [1, 2]
    played(simulation, np.array([0.4, 0.4]))
    assert np.abs(simulation.joint_position() - 0.4).max() < 0.15


ELBOW = '<position name="two" joint="elbow"/>'
REFUSED = {
    "none": (ELBOW, "no position actuator for joint 'shoulder'"),
    "two": (ARM + '<motor name="again" joint="elbow"/>', "'elbow' has several actuators, 'again' among them"),
    "velocity": ('<velocity name="spin" joint="shoulder" kv="3"/>' + ELBOW, "'spin'.* follows a velocity"),
    "integrator": (
        '<intvelocity name="slow" joint="shoulder" kp="3" actrange="-1 1"/>' + ELBOW,
        "'slow'.* state of its own .dyntype integrator",
    ),
    "filter": (
        '<position name="lag" joint="shoulder" timeconst="0.1"/>' + ELBOW,
        "'lag'.* state of its own .dyntype filterexact",
    ),
    "damper": ('<damper name="oil" joint="shoulder" kv="1" ctrlrange="0 1"/>' + ELBOW, "'oil'.* has a gain"),
    "bias": (
        '<general name="odd" joint="shoulder" gainprm="5" biastype="affine" biasprm="1 -5 0"/>' + ELBOW,
        "'odd'.* has a bias",
    ),
    "nameless": ('<velocity joint="shoulder" kv="3"/>' + ELBOW, "'number 0'.* follows a velocity"),
    "tendon": (
        '<position name="rope" tendon="both"/>' + ARM,
        "'rope' acts on joint 'shoulder' by a transmission of its own",
    ),
    "group": (
        '<position name="off" joint="shoulder" group="3"/>' + ELBOW,
        "'off'.* switched off: its group 3",
    ),
}


@pytest.mark.parametrize(("actuators", "words"), REFUSED.values(), ids=REFUSED)
def test_other_drives_are_refused_by_name(robot, actuators, words):
    both = '<joint joint="shoulder" coef="1"/><joint joint="elbow" coef="-1"/>'
    parts = f'<tendon><fixed name="both">{both}</fixed></tendon><option actuatorgroupdisable="3"/>'
    with pytest.raises(UserError, match=words) as caught:
        Simulation(robot(actuators, parts=parts))
    assert "reacher.xml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_switches_actuation_off_is_refused(robot):
    with pytest.raises(UserError, match="actuation='disable'"):
        Simulation(robot(parts='<option><flag actuation="disable"/></option>'))


SHELF = '<geom type="box" size="1 1 0.01" pos="{}"/>'
PAIR = '<contact><pair geom1="ground" geom2="pad"/></contact>'
SILENT = '<geom name="ground" type="plane" size="0 0 0.1" contype="0" conaffinity="0"/>'


@pytest.mark.parametrize(
    ("given", "stands"),
    [
        ({}, True),
        ({"ground": ""}, False),
        ({"ground": SILENT}, False),
        ({"touch": 'contype="2" conaffinity="4"'}, False),
        ({"ground": SILENT, "touch": 'name="pad"', "parts": PAIR}, True),
        ({"ground": SHELF.format("0 0 -0.01")}, True),
        ({"ground": SHELF.format("5 0 -0.01")}, False),
        ({"ground": "", "more": f'<body pos="0 0 -0.5">{SHELF.format("0 0 0.49")}</body>'}, True),
        ({"ground": '<geom type="plane" size="0 0 1" pos="2 0 0" euler="0 -1.5707963 0"/>'}, False),
        ({"ground": "", "parts": '<option gravity="0 0 0"/>'}, True),
    ],
    ids=range(10),
)
def test_a_base_that_moves_freely_has_ground_or_is_refused(robot, given, stands):
    embodiment = robot(free=True, **given)
    if not stands:
        with pytest.raises(UserError, match='there is no ground.*type="plane"'):
            Simulation(embodiment)
        return
    simulation = Simulation(embodiment)
    played(simulation, np.array([0.4, 0.4]))
    assert simulation.base_pose()[0][2] == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<mujoco>", "<mujoco"),
        ("capsule", "potato"),
        ('mass="4"', 'mass="-4"'),
        ("<worldbody>", "<worldbody><a/>"),
    ],
)
def test_what_mujoco_says_of_a_file_is_one_sentence(robot, old, new):
    embodiment = robot()
    text = embodiment.model_path.read_text()
    assert old in text
    embodiment.model_path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match="reacher.xml: MuJoCo cannot read it: ") as caught:
        RobotEnv(embodiment, 0)
    assert "\n" not in str(caught.value)


def test_coupled_joints_start_where_their_leader_is(robot):
    equality = '<equality><joint joint1="grip" joint2="elbow" polycoef="0.01 0.05 0 0 0"/></equality>'
    simulation = Simulation(robot(parts=equality))
    place = simulation.model.joint("grip").qposadr[0]
    assert simulation.data.qpos[place] == pytest.approx(0.01 + 0.05 * 0.4)
    simulation.place(np.zeros(3), np.array([0, 0, 0, 1.0]), np.array([0.0, 0.2]))
    assert simulation.data.qpos[place] == pytest.approx(0.02)


def test_the_simulation_has_its_first_name_too():
    from tdmpc2_core.envs import simulation

    assert simulation.Simulation is Simulation
