"""A robot folder made from a URDF compiles, stands, and is that robot; mistakes are one sentence."""

import shlex
import struct
import sys

import mujoco
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tdmpc2_core import cli
from tdmpc2_core.agent import Agent
from tdmpc2_core.descriptions.from_urdf import import_urdf
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment

INERTIA = '<inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/>'
LINK = '<link name="{}"><inertial><mass value="{}"/>' + INERTIA + "</inertial>"
LIMIT = '<limit lower="{}" upper="{}" effort="8" velocity="9"/>'
URDF = f"""
<robot name="hopper">
  {LINK.format("trunk", 3)}
    <collision><geometry><box size="0.3 0.3 0.1"/></geometry></collision></link>
  {LINK.format("leg", 0.5)}
    <visual><geometry><mesh filename="package://nowhere/leg.dae"/></geometry></visual>
    <collision><origin xyz="0 0 -0.3"/><geometry><box size="0.3 0.3 0.02"/></geometry></collision></link>
  <link name="sole"/>
  <joint name="knee" type="revolute"><parent link="trunk"/><child link="leg"/><axis xyz="0 1 0"/>
    {LIMIT.format(-0.5, 1.0)}<dynamics damping="0.2"/></joint>
  <joint name="ankle" type="fixed"><parent link="leg"/><child link="sole"/><origin xyz="0 0 -0.31"/></joint>
</robot>
"""


@pytest.fixture
def write(tmp_path):
    def write(text=URDF):
        (tmp_path / "hopper.urdf").write_text(text)
        return tmp_path / "hopper.urdf"

    return write


def test_a_floating_robot_stands_where_its_lowest_shape_touches(write, tmp_path):
    robot = Embodiment.load(import_urdf(write(), tmp_path / "hopper"))
    assert robot.joint_names == ("knee",)
    assert (robot.lower[0], robot.upper[0], robot.effort_limit[0], robot.velocity_limit[0]) == (
        -0.5,
        1.0,
        8,
        9,
    )
    assert robot.reset.base_height == pytest.approx(0.31)
    assert (robot.base_frame, robot.imu_frame) == ("trunk", "trunk")
    simulation = Simulation(robot)
    assert simulation.model.body_mass.sum() == pytest.approx(3.5)
    for _ in range(100):
        simulation.step(robot.default_position)
    orientation, rate, acceleration = simulation.imu()
    assert acceleration[2] == pytest.approx(9.81, abs=0.2)
    assert not simulation.fallen()
    assert np.abs(simulation.joint_position()).max() < 0.05


def test_rewards_take_the_command_by_name(write, tmp_path):
    """The draft's command has no lateral term: the turn is its second one."""
    robot = Embodiment.load(import_urdf(write(), tmp_path / "hopper"))
    assert robot.twist_command.names == ("linear_x", "angular_z")
    assert_allclose(robot.twist_command.velocity([0.2, 0.4]), [0.2, 0.0, 0.4])
    rewards = []
    for turn in (0.0, 0.5):
        env = RobotEnv(robot, 0, EnvOptions(sensor_noise=False, randomise=False, random_reset=False))
        env.set_command(np.array([0.0, turn]))
        env.reset()
        rewards.append(env.step(np.zeros(1)).reward)
    assert rewards[1] < rewards[0] - 0.2  # standing still earns the whole term only without a turn


def test_a_root_link_named_world_bolts_the_robot_down(write, tmp_path):
    joint = '<joint name="bolt" type="fixed"><parent link="world"/><child link="trunk"/>'
    origin = '<origin xyz="0 0 1" rpy="0 0 1.5707963"/></joint>'
    text = URDF.replace('<robot name="hopper">', f'<robot name="hopper"><link name="world"/>{joint}{origin}')
    robot = Embodiment.load(import_urdf(write(text), tmp_path / "hopper"))
    model = mujoco.MjModel.from_xml_path(str(robot.model_path))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert model.njnt == 1
    assert_allclose(data.body("trunk").xpos, [0, 0, 1], atol=1e-6)
    assert_allclose(data.body("trunk").xmat.reshape(3, 3)[:, 0], [0, 1, 0], atol=1e-6)
    assert not robot.observation.has("gravity")


def test_collision_meshes_come_along(write, tmp_path):
    corners = [(0, 0, 0), (0.2, 0, 0), (0, 0.2, 0), (0, 0, 0.2)]
    faces = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    triangles = [struct.pack("<12fH", 0, 0, 0, *(c for i in face for c in corners[i]), 0) for face in faces]
    (tmp_path / "foot.stl").write_bytes(b" " * 80 + struct.pack("<I", 4) + b"".join(triangles))
    text = URDF.replace('<box size="0.3 0.3 0.02"/>', '<mesh filename="package://{}/foot.stl"/>')
    robot = Embodiment.load(import_urdf(write(text.replace("{}", tmp_path.name)), tmp_path / "hopper"))
    assert Simulation(robot).model.nmesh == 1


@pytest.mark.parametrize(
    ("text", "broken", "words"),
    [
        ("</robot>", "", "cannot be read as XML"),
        ('type="revolute"', 'type="planar"', "'knee' is 'planar'"),
        (
            '<limit lower="-0.5" upper="1.0" effort="8" velocity="9"/>',
            "",
            "'knee' needs lower, upper, effort",
        ),
        ('lower="-0.5"', 'lower="2"', "lower 2 above upper 1"),
        ('lower="-0.5"', 'lower="minus"', "lower must be a number, got 'minus'"),
        ('xyz="0 1 0"', 'xyz="0 0 0"', "axis 0 0 0"),
        ('value="0.5"', 'value="-0.5"', "'leg' has the mass -0.5 kg"),
        ('value="3"', 'value="0"', "have no mass.* --fixed"),
        ('<link name="sole"/>', '<link name="leg"/>', "link 'leg' stands there more than once"),
        (
            '<link name="sole"/>',
            '<link name="sole"/><link name="hat"/>',
            "'trunk' and 'hat' both have no parent",
        ),
        ('<parent link="trunk"/>', '<parent link="sole"/>', "hangs on itself"),
        ('<box size="0.3 0.3 0.02"/>', "<torus/>", "is a torus"),
        ('<dynamics damping="0.2"/>', '<mimic joint="elbow"/>', "'knee' is to mimic 'elbow'"),
        ('<dynamics damping="0.2"/>', '<mimic joint="knee"/>', "'knee' mimics itself"),
        ('<robot name="hopper">', '<sdf><robot name="hopper"/>', "cannot be read as XML"),
        ('<box size="0.3 0.3 0.02"/>', '<mesh filename="foot.stl"/>', "'foot.stl' is missing"),
        ('<parent link="leg"/>', '<parent link="foot"/>', "'ankle' names a link 'foot', and there is none"),
        ('type="revolute"', 'type="fixed"', "no joint moves"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_folder(write, tmp_path, text, broken, words):
    assert text in URDF
    with pytest.raises(UserError, match=words) as caught:
        import_urdf(write(URDF.replace(text, broken)), tmp_path / "hopper")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hopper").exists()


def test_the_command_says_what_to_do_next_and_spares_a_folder(write, tmp_path, capsys):
    arguments = ["import-urdf", str(write()), str(tmp_path / "hopper")]
    assert cli.main(arguments) == 0
    assert "review it, then: tdmpc2 student robot=" in capsys.readouterr().out
    assert cli.main(arguments) == 2
    assert "exists already" in capsys.readouterr().err


SHORT = "updates=2 expert_decisions=1 robots=4 decisions=8 warm_up=64 updates_per_cycle=2 model_size=tiny"
SHORT += " threads=1 learner.batch_size=8 learner.horizon=3 capacity=4000 branches.count=2"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [[], ["--fixed"]])
def test_the_printed_command_runs_as_it_is_printed(write, tmp_path, capsys, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["import-urdf", str(write()), "robots/my hopper", *options]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].split("then: ")[1])
    assert words[0] == "tdmpc2" and cli.main([*words[1:], *SHORT.split()]) == 0, capsys.readouterr().err
    assert Agent.load("runs/my hopper/checkpoint").embodiment.name == "hopper"


def test_a_robot_without_scripted_controller_is_trained_without_one(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import_urdf(write(), tmp_path / "robots" / "jumper")
    words = (
        "num_envs=1 model_size=tiny learner.batch_size=8 planner.num_samples=32 planner.num_elites=8 steps=4"
    )
    assert cli.main(["train", "robot=robots/jumper", *words.split()]) == 0
    assert Agent.load("runs/hopper/checkpoint").provenance["steps"] == 4


# ---- files as makers ship them ----
def arm(*parts: str, joint: str = 'type="revolute"', limit: str = LIMIT.format(-1, 1)) -> str:
    """A bolted arm of one joint, `swing`, about an axis of its own, and more links."""
    return f"""
<robot name="arm"><link name="world"/>
  <joint name="bolt" type="fixed"><parent link="world"/><child link="foot"/></joint>
  {LINK.format("foot", 2)}</link>
  {LINK.format("boom", 1)}</link>
  <joint name="swing" {joint}><origin xyz="0.1 0 0.2" rpy="0.3 -0.2 0.5"/><parent link="foot"/>
    <child link="boom"/><axis xyz="0.6 0 0.8"/>{limit}</joint>
  {"".join(parts)}
</robot>"""


def child(name: str, parent: str, kind: str = "fixed", body: str = "", more: str = "") -> str:
    return (
        f'<link name="{name}">{body}</link><joint name="{name}_joint" type="{kind}"><origin xyz="0 0.05 0.3" '
        f'rpy="1 0.2 -0.4"/><parent link="{parent}"/><child link="{name}"/><axis xyz="0 0 1"/>{more}</joint>'
    )


def weight(mass: float, inertia: str = INERTIA) -> str:
    return f'<inertial><origin xyz="0.1 0.2 -0.1" rpy="0.5 0 0.3"/><mass value="{mass}"/>{inertia}</inertial>'


def collision(shape: str) -> str:
    return f"<collision><geometry>{shape}</geometry></collision>"


def stl(path, size=0.2):
    """A binary STL of a tetrahedron."""
    corners = [(0, 0, 0), (size, 0, 0), (0, size, 0), (0, 0, size)]
    faces = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    triangles = [struct.pack("<12fH", 0, 0, 0, *(c for i in face for c in corners[i]), 0) for face in faces]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b" " * 80 + struct.pack("<I", 4) + b"".join(triangles))


def theirs(text: str) -> mujoco.MjModel:
    """What MuJoCo's own reader makes of a URDF, every link a body."""
    option = '<mujoco><compiler fusestatic="false" discardvisual="false"/></mujoco>'
    return mujoco.MjModel.from_xml_string(text.replace("</robot>", f"{option}</robot>"))


def imported(write, tmp_path, text, **options) -> Simulation:
    return Simulation(Embodiment.load(import_urdf(write(text), tmp_path / "made", **options)))


def test_frames_and_weights_are_those_of_mujocos_own_reader(write, tmp_path):
    more = child("mast", "boom", body=weight(0.4)) + child("tip", "mast", body=weight(0.2))
    more += child("hand", "tip", "prismatic", weight(0.3), LIMIT.format(0, 0.1))
    simulation = imported(write, tmp_path, arm(more))
    model, data = simulation.model, simulation.data
    apart = theirs(arm(more))
    other = mujoco.MjData(apart)
    for name, value in (("swing", 0.7), ("hand_joint", 0.06)):
        data.qpos[model.joint(name).qposadr] = other.qpos[apart.joint(name).qposadr] = value
    for each in ((model, data), (apart, other)):
        mujoco.mj_kinematics(*each)
    for name in ("boom", "mast", "tip", "hand"):
        assert_allclose(data.body(name).xpos, other.body(name).xpos, atol=1e-9)
        assert_allclose(data.body(name).xmat, other.body(name).xmat, atol=1e-9)
    parts = [other.body(name) for name in ("boom", "mast", "tip")]  # fixed to each other
    masses = np.array([apart.body(part.id).mass[0] for part in parts])
    centre = masses @ np.array([part.xipos for part in parts]) / masses.sum()
    inertia = np.zeros((3, 3))
    for part, mass in zip(parts, masses, strict=True):
        turn, arm_ = part.ximat.reshape(3, 3), part.xipos - centre
        inertia += turn @ np.diag(apart.body(part.id).inertia) @ turn.T
        inertia += mass * (arm_ @ arm_ * np.eye(3) - np.outer(arm_, arm_))
    boom = data.body("boom")
    turn = boom.ximat.reshape(3, 3)
    assert model.body("boom").mass[0] == pytest.approx(1.6, abs=1e-12)
    assert_allclose(boom.xipos, centre, atol=1e-9)
    assert_allclose(turn @ np.diag(model.body("boom").inertia) @ turn.T, inertia, atol=1e-9)
    assert model.body_mass.sum() == pytest.approx(3.9, abs=1e-12)


def world_points(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> np.ndarray:
    """Vertices of a mesh, or the corners of a primitive's box, in the world."""
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
        start, count = (
            model.mesh_vertadr[model.geom_dataid[geom]],
            model.mesh_vertnum[model.geom_dataid[geom]],
        )
        points = model.mesh_vert[start : start + count]
    else:
        corners = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(-1, 3)
        points = model.geom_aabb[geom, :3] + corners * model.geom_aabb[geom, 3:]
    points = points @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
    return points[np.lexsort(points.round(5).T)]


def test_shapes_are_where_mujocos_own_reader_puts_them(write, tmp_path, monkeypatch):
    stl(tmp_path / "pad.stl")
    shapes = (
        '<box size="0.1 0.2 0.3"/>',
        '<cylinder radius="0.1" length="0.4"/>',
        '<sphere radius="0.2"/>',
        '<mesh filename="pad.stl" scale="1 -2 0.5"/>',
    )
    place = '<origin xyz="0.1 -0.2 0.3" rpy="0.4 0.5 -0.6"/>'
    body = "".join(collision(shape).replace("<geometry>", f"{place}<geometry>") for shape in shapes)
    text = arm(child("block", "boom", body=body))
    simulation = imported(write, tmp_path, text)
    monkeypatch.chdir(tmp_path)
    other = theirs(text)
    found = []
    for model in (simulation.model, other):
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        first = model.body("block").geomadr[0]
        found.append([world_points(model, data, geom) for geom in range(first, first + len(shapes))])
    for ours, wanted in zip(*found, strict=True):
        assert_allclose(ours, wanted, atol=1e-5)


def test_a_block_for_mujoco_is_left_out_but_for_its_mesh_folder(write, tmp_path):
    stl(tmp_path / "parts" / "boom.stl")
    block = '<mujoco><compiler meshdir="parts" balanceinertia="true"/><option gravity="0 0 0"/></mujoco>'
    shape = child("shell", "boom", body=collision('<mesh filename="package://arm/meshes/boom.stl"/>'))
    notes = []
    simulation = imported(write, tmp_path, arm(block, shape), note=notes.append)
    assert simulation.model.nmesh == 1
    assert simulation.model.opt.gravity[2] == pytest.approx(-9.81)
    assert any("<mujoco>" in note for note in notes)


def test_meshes_may_be_shared_scaled_and_of_one_name(write, tmp_path):
    stl(tmp_path / "left" / "pad.stl", 0.1)
    stl(tmp_path / "right" / "pad.stl", 0.3)
    files = ("left/pad.stl", "left/pad.stl", "right/pad.stl", "./left/pad.stl")
    parts = [
        child(f"pad{i}", "boom", body=collision(f'<mesh filename="{file}" scale="{scale} 1 1"/>'))
        for i, (file, scale) in enumerate(zip(files, (1, 2, 1, 1), strict=True))
    ]
    simulation = imported(write, tmp_path, arm(*parts))
    model = simulation.model
    assert model.nmesh == 3
    assert len(list((tmp_path / "made").glob("pad_*.stl"))) == 2
    longest = [2 * model.geom_aabb[model.body(f"pad{i}").geomadr[0], 3:].max() for i in range(4)]
    assert longest[0] == pytest.approx(longest[3])
    assert longest[1] > 1.2 * longest[0] and longest[2] == pytest.approx(3 * longest[0])


@pytest.mark.parametrize("place", ["ament", "rospack", "manifest", "above", "nameless"])
def test_packages_are_found_in_workspaces_and_above_the_file(write, tmp_path, monkeypatch, place):
    work = tmp_path / "work"
    name = "arm_parts"
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    monkeypatch.delenv("ROS_PACKAGE_PATH", raising=False)
    if place == "ament":
        stl(work / "share" / name / "pad.stl")
        monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{work}")
    elif place == "rospack":
        stl(work / "src" / name / "pad.stl")
        monkeypatch.setenv("ROS_PACKAGE_PATH", f"{work / 'src' / name}")
    elif place == "manifest":
        stl(tmp_path / "pad.stl")
        (tmp_path / "package.xml").write_text(f"<package><name> {name} </name></package>")
    elif place == "above":
        stl(tmp_path / name / "pad.stl")
    else:
        stl(tmp_path / "pad.stl")
        name = ""
    shape = child("pad", "boom", body=collision(f'<mesh filename="package://{name}/pad.stl"/>'))
    assert imported(write, tmp_path, arm(shape)).model.nmesh == 1


def test_a_mesh_that_is_missing_is_named_with_the_places_looked_at(write, tmp_path, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/opt/robots")
    shape = child("pad", "boom", body=collision('<mesh filename="package://parts/pad.stl"/>'))
    with pytest.raises(UserError, match="/opt/robots/share/parts/pad.stl") as caught:
        import_urdf(write(arm(shape)), tmp_path / "made")
    assert f"{tmp_path}/parts/pad.stl" in str(caught.value) and "'pad'" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["package://../up/pad.stl", "package://..", "http://host/pad.stl", "a" * 5000]
)
def test_names_of_packages_are_no_paths(write, tmp_path, name):
    stl(tmp_path.parent / "up" / "pad.stl")
    shape = child("pad", "boom", body=collision(f'<mesh filename="{name}"/>'))
    with pytest.raises(UserError, match="is missing"):
        import_urdf(write(arm(shape)), tmp_path / "made")


def test_what_mimics_has_no_drive_and_is_where_its_leader_puts_it(write, tmp_path):
    """A follower, one that follows it, and a leader whose default is not 0."""
    limit = LIMIT.format(0.2, 1.0)
    more = child("left", "boom", "revolute", weight(0.1), limit)
    mimic = '<mimic joint="{}" multiplier="{}" offset="{}"/>'
    more += child("right", "boom", "revolute", weight(0.1), limit + mimic.format("left_joint", -1, 0.1))
    more += child("last", "right", "continuous", weight(0.1), mimic.format("right_joint", 0.5, 0))
    simulation = imported(write, tmp_path, arm(more))
    robot, model, data = simulation.embodiment, simulation.model, simulation.data
    assert robot.joint_names == ("swing", "left_joint") and model.nu == 2

    def places():
        return [data.qpos[model.joint(f"{name}_joint").qposadr[0]] for name in ("left", "right", "last")]

    default = robot.default_position[1]
    assert default > 0.2
    assert_allclose(places(), [default, 0.1 - default, 0.5 * (0.1 - default)], atol=1e-12)
    for _ in range(500):
        simulation.step(np.array([0.0, 0.8]))
    left, right, last = places()
    assert left == pytest.approx(0.8, abs=0.05)
    assert right == pytest.approx(0.1 - left, abs=0.003) and last == pytest.approx(0.5 * right, abs=0.003)


def test_shapes_without_inertial_weigh_nothing(write, tmp_path):
    ball = collision('<sphere radius="0.5"/>')
    more = child("shell", "boom", body=ball) + child("wheel", "boom", "continuous", ball)
    simulation = imported(write, tmp_path, arm(more))
    assert simulation.model.body_mass.sum() == pytest.approx(3.0, abs=1e-6)
    for _ in range(100):
        simulation.step(simulation.embodiment.default_position)
    assert np.isfinite(simulation.data.qpos).all()


@pytest.mark.parametrize(
    ("values", "noted"),
    [
        ('ixx="1e-6" iyy="1e-6" izz="1e-6" ixy="1e-6" ixz="1e-6" iyz="1e-6"', True),
        ('ixx="1" iyy="0.1" izz="0.1" ixy="0" ixz="0" iyz="0"', True),
        ('ixx="-1" iyy="-1" izz="-1" ixy="0" ixz="0" iyz="0"', True),
        ('ixx="0" iyy="0" izz="0" ixy="0" ixz="0" iyz="0"', False),
    ],
)
def test_an_inertia_that_no_body_has_becomes_the_nearest_one(write, tmp_path, values, noted):
    """On a frame, and on a link that moves by itself: then a note says so where it matters."""
    frame = child("frame", "foot", body=weight(1e-6, f"<inertia {values}/>"))
    moving = child("bob", "boom", "revolute", weight(0.5, f"<inertia {values}/>"), LIMIT.format(-1, 1))
    notes = []
    simulation = imported(write, tmp_path, arm(frame, moving), note=notes.append)
    inertia = simulation.model.body("bob").inertia
    assert inertia.min() > 0.0 and inertia.sum() >= 2 * inertia.max()
    assert any("'bob'" in note and "inertia" in note for note in notes) == noted


def test_a_joint_without_ends_turns_within_a_turn(write, tmp_path):
    simulation = imported(
        write, tmp_path, arm(joint='type="continuous"', limit='<limit effort="30" velocity="5"/>')
    )
    robot = simulation.embodiment
    assert (robot.lower[0], robot.upper[0]) == (pytest.approx(-np.pi), pytest.approx(np.pi))
    assert not simulation.model.jnt_limited[0]
    for _ in range(1000):
        simulation.step(np.array([3.0]))
    assert simulation.joint_position()[0] == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("limit", ["", '<limit effort="0" velocity="0"/>'])
def test_effort_and_velocity_are_assumed_with_a_note_where_the_file_has_none(write, tmp_path, limit):
    notes = []
    text = arm(joint='type="continuous"', limit=limit)
    simulation = imported(write, tmp_path, text, note=notes.append)
    assert {"effort", "velocity"} <= {word for note in notes for word in note.split()}
    draft = (tmp_path / "made" / "embodiment.yaml").read_text()
    assert all(note in draft for note in notes)
    for _ in range(500):
        simulation.step(simulation.embodiment.default_position)
    assert abs(simulation.joint_position()[0]) < 0.3  # holds its own weight


@pytest.mark.parametrize("limit", ['lower="0" upper="0" effort="0" velocity="0"', 'effort="5" velocity="1"'])
def test_a_joint_without_stated_limits_has_none(write, tmp_path, limit):
    """As exporters write it that were not told any: four zeros, or no lower and upper."""
    notes = []
    simulation = imported(write, tmp_path, arm(limit=f"<limit {limit}/>"), note=notes.append)
    assert not simulation.model.jnt_limited[0]
    assert any("'swing' has no limits" in note for note in notes)


def test_a_joint_whose_limits_are_one_place_is_fixed_there(write, tmp_path):
    mimic = '<mimic joint="lock_joint" multiplier="2"/>'
    more = child("lock", "boom", "revolute", weight(0.1), LIMIT.format(0.3, 0.3))
    more += child("slave", "boom", "revolute", weight(0.1), LIMIT.format(-1, 1) + mimic)
    notes = []
    simulation = imported(write, tmp_path, arm(more), note=notes.append)
    assert simulation.embodiment.joint_names == ("swing",)
    assert any("'lock_joint' is fixed" in note for note in notes)
    wanted = theirs(arm(more))
    data = mujoco.MjData(wanted)
    data.qpos[[wanted.joint(f"{name}_joint").qposadr[0] for name in ("lock", "slave")]] = (0.3, 0.6)
    mujoco.mj_kinematics(wanted, data)
    for name in ("lock", "slave"):
        assert_allclose(simulation.data.body(name).xmat, data.body(name).xmat, atol=1e-9)


def test_a_floating_joint_above_the_base_is_the_free_one(write, tmp_path):
    joint = '<joint name="free" type="floating"><parent link="map"/><child link="trunk"/></joint>'
    text = URDF.replace('<robot name="hopper">', f'<robot name="hopper"><link name="map"/>{joint}')
    simulation = imported(write, tmp_path, text)
    assert simulation.floating and simulation.embodiment.base_frame == "trunk"


@pytest.mark.parametrize("kind", ["fixed", "prismatic"])
def test_a_world_that_holds_more_than_one_fixed_link_is_the_base(write, tmp_path, kind):
    """Two arms on one world, and an arm on rails; MuJoCo keeps the name `world` for itself."""
    text = arm(child("rail", "world", kind, weight(1), LIMIT.format(0, 1)))
    simulation = imported(write, tmp_path, text)
    assert not simulation.floating
    assert simulation.embodiment.base_frame == "world"
    wanted = theirs(text)
    data = mujoco.MjData(wanted)
    mujoco.mj_kinematics(wanted, data)
    simulation.data.qpos[:] = 0.0
    simulation.update_poses()
    for name in ("boom", "rail"):
        assert_allclose(simulation.data.body(name).xpos, data.body(name).xpos, atol=1e-9)
    assert simulation.model.body_mass.sum() == pytest.approx(4.0)


def test_names_are_data(write, tmp_path):
    """Names that would be paths, or end a line of YAML, reach every file and lead nowhere else."""
    robot, joint, link = "../../up/my.robot&#10;evil: 1", "knee/a.b c&#10;- d", "leg/../&#10;x y"
    stl(tmp_path / "a b &.stl")
    text = URDF.replace('name="hopper"', f'name="{robot}"').replace('"knee"', f'"{joint}"')
    text = text.replace('"leg"', f'"{link}"')
    text = text.replace('<box size="0.3 0.3 0.02"/>', '<mesh filename="a b &amp;.stl"/>')
    before = set(tmp_path.parent.rglob("*"))
    path = import_urdf(write(text), tmp_path / "made")
    made = set(tmp_path.parent.rglob("*")) - before - {tmp_path / "hopper.urdf", tmp_path / "made"}
    assert {file.parent for file in made} == {tmp_path / "made"}
    assert all(file.stem.replace("_", "").isalnum() for file in made)
    simulation = Simulation(Embodiment.load(path))
    assert simulation.embodiment.joint_names == ("knee/a.b c\n- d",)
    assert simulation.model.body("leg/../\nx y").mass[0] == pytest.approx(0.5)


@pytest.mark.parametrize("problem", [OSError("disk full"), KeyboardInterrupt(), RuntimeError("unforeseen")])
def test_whatever_goes_wrong_no_folder_is_left(write, tmp_path, monkeypatch, problem):
    def fail(*_):
        raise problem

    source = write()
    monkeypatch.setattr("tdmpc2_core.descriptions.from_urdf.draft_embodiment", fail)
    with pytest.raises(UserError if isinstance(problem, OSError) else type(problem)):
        import_urdf(source, tmp_path / "deep" / "hopper")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [source]
    assert not (tmp_path / "deep" / "hopper").exists()
    assert not list((tmp_path / "deep").iterdir())


FACET = """  facet normal 0 0 0
    outer loop
      vertex {}
      vertex {}
      vertex {}
    endloop
  endfacet"""
CORNERS = ("0 0 0", "200 0 0", "0 200 0", "0 0 200")
FACES = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))
COLLADA = """<?xml version="1.0"?>
<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
  <asset><unit name="millimeter" meter="0.001"/><up_axis>Y_UP</up_axis></asset>
  <library_geometries><geometry id="g"><mesh>
    <source id="p"><float_array id="a" count="12">{}</float_array><technique_common>
      <accessor source="#a" count="4" stride="3"><param name="X" type="float"/><param name="Y" type="float"/>
      <param name="Z" type="float"/></accessor></technique_common></source>
    <vertices id="v"><input semantic="POSITION" source="#p"/></vertices>
    <triangles count="4"><input semantic="VERTEX" source="#v" offset="0"/><p>{}</p></triangles>
  </mesh></geometry></library_geometries>
  <library_visual_scenes><visual_scene id="s"><node id="n"><scale>1 1 3</scale><instance_geometry url="#g"/>
  </node></visual_scene></library_visual_scenes>
  <scene><instance_visual_scene url="#s"/></scene>
</COLLADA>"""
FACETS = [FACET.format(*(CORNERS[i] for i in face)) for face in FACES]
ASCII_STL = "\n".join(["solid pad", *FACETS, "endsolid pad", ""])
DAE = COLLADA.format(" ".join(CORNERS), " ".join(str(i) for face in FACES for i in face))


@pytest.mark.parametrize(
    ("file", "text", "scale", "extent"),
    [("pad.stl", ASCII_STL, 0.001, (0.2, 0.2, 0.2)), ("pad.DAE", DAE, 1, (0.2, 0.2, 0.6))],
)
def test_other_forms_of_meshes_come_through_a_library(write, tmp_path, file, text, scale, extent):
    """Collada in its own unit, with its nodes' transformations, and its axes as they are."""
    (tmp_path / file).write_text(text)
    mesh = f'<mesh filename="{file}" scale="{scale} {scale} {scale}"/>'
    model = imported(write, tmp_path, arm(child("pad", "boom", body=collision(mesh)))).model
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.mesh_quat[0])
    points = model.mesh_vert @ turn.reshape(3, 3).T + model.mesh_pos[0]
    assert_allclose(points.max(axis=0) - points.min(axis=0), extent, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("pad.stl", b"", "cannot be read as a mesh|has no triangles"),
        ("pad.stl", b"\0" * 80 + struct.pack("<I", 1) + b"\0" * 50, "MuJoCo cannot read it"),
        ("pad.obj", b"v 0 0 zero\nf 1 2 3\n", "MuJoCo cannot read it"),
        ("pad.dae", b"<COLLADA>", "cannot be read as a mesh"),
        ("pad.step", b"", "accepted: OBJ, STL, DAE, PLY, OFF"),
    ],
)
def test_a_damaged_mesh_is_one_sentence_that_names_it(write, tmp_path, file, content, words):
    (tmp_path / file).write_bytes(content)
    shape = child("pad", "boom", body=collision(f'<mesh filename="{file}"/>'))
    with pytest.raises(UserError, match=words) as caught:
        import_urdf(write(arm(shape)), tmp_path / "made")
    assert file in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("missing", ["trimesh", "collada"])
def test_without_the_library_the_extra_is_named(write, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    (tmp_path / "pad.dae").write_text(DAE)
    shape = child("pad", "boom", body=collision('<mesh filename="pad.dae"/>'))
    with pytest.raises(UserError, match=r"extra 'meshes': pip install"):
        import_urdf(write(arm(shape)), tmp_path / "made")


def test_drafted_gains_are_what_a_physics_step_can_follow(write, tmp_path):
    """An effort limit that means none, on a light link."""
    light = '<inertia ixx="1e-5" iyy="1e-5" izz="1e-5" ixy="0" ixz="0" iyz="0"/>'
    more = child("bob", "boom", "revolute", weight(0.01, light), LIMIT.format(-1, 1).replace("8", "50000"))
    simulation = imported(write, tmp_path, arm(more))
    for _ in range(300):
        simulation.step(np.array([0.2, 0.5]))
    assert simulation.joint_position()[1] == pytest.approx(0.5, abs=0.1)
    assert not any(warning.number for warning in simulation.data.warning)
