"""Bags to episodes: what the environment that made the messages saw, did and earned comes out again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from bag_support import (
    COMMAND,
    IMU,
    JOINTS,
    ODOMETRY,
    TRAJECTORY,
    Entry,
    header,
    imu,
    joint_state,
    kind,
    record,
    write_bag,
)

from tdmpc2_core.cli import main
from tdmpc2_core.data.bags.convert import BagOptions, beside, convert_bags
from tdmpc2_core.data.bags.storage import read_file
from tdmpc2_core.data.episodes import EpisodeStore
from tdmpc2_core.errors import UserError

EXACT = BagOptions(latency=0.004)


@pytest.fixture(scope="module")
def made():
    return record(60)


def episodes(folder):
    return [episode for episode, _ in EpisodeStore(folder)]


def converted(tmp_path, entries, robot, options=EXACT, **how):
    (report,) = convert_bags([write_bag(tmp_path / "bag", entries, **how)], robot, tmp_path / "out", options)
    return report, episodes(tmp_path / "out")


def equal_to_live(episode, made, begin=0):
    steps = len(episode)
    assert np.array_equal(episode.observation, np.stack(made.observation[begin : begin + steps + 1]))
    assert np.array_equal(episode.action, np.stack(made.action[begin : begin + steps]))


@pytest.mark.parametrize(
    ("storage", "compression", "metadata"),
    [
        ("mcap", "none", True),
        ("mcap", "storage", False),
        ("mcap", "file", False),
        ("mcap", "message", True),
        ("sqlite3", "none", False),
        ("sqlite3", "file", True),
        ("sqlite3", "message", False),
    ],
)
def test_every_form_of_a_bag_gives_the_environments_observations(
    made, tmp_path, storage, compression, metadata
):
    how = {"storage": storage, "compression": compression, "metadata": metadata}
    report, (episode,) = converted(tmp_path, made.entries, made.robot, **how)
    assert len(episode) == 59  # what the last decision led to is never followed by a command
    equal_to_live(episode, made)
    assert np.isfinite(episode.reward).all() and report.base_velocity["odometry"] == 59
    assert np.abs(episode.reward - np.array(made.reward[:59])).max() < 1e-5  # of float32


def test_the_raw_arrays_are_the_samples_and_targets(made, tmp_path):
    _, (episode,) = converted(tmp_path, made.entries, made.robot)
    steps, order = len(episode), np.argsort(np.argsort(made.robot.joint_names))
    states = [entry.message for entry in made.topic(JOINTS)][: steps + 1]
    assert np.array_equal(episode.raw["joint_position"], [m.position[order] for m in states])
    assert np.array_equal(episode.raw["joint_velocity"], [m.velocity[order] for m in states])
    sent = [entry.message.points[0].positions for entry in made.topic(TRAJECTORY)][:steps]
    assert np.array_equal(episode.raw["target"], sent)
    down = episode.raw["gravity"]
    assert down.shape == (steps + 1, 3) and np.allclose(np.linalg.norm(down, axis=1), 1.0)
    assert np.allclose(np.diff(episode.raw["stamp"]), 0.02, atol=1e-6)
    assert episode.raw["base_velocity"].shape == (steps + 1, 6)
    ((_, metadata),) = list(EpisodeStore(tmp_path / "out"))
    assert metadata["source"] == "bag" and metadata["bag"] == "bag"
    assert metadata["latency"] == pytest.approx(0.004, abs=0.001)
    assert metadata["start"] == pytest.approx(episode.raw["stamp"][0])


def halves(made):
    """Each joint state in two messages of half of the joints, with a gripper's beside them."""
    result = []
    for entry in made.entries:
        if entry.topic != JOINTS:
            result.append(entry)
            continue
        stamp = entry.message.header.stamp
        now = stamp.sec + stamp.nanosec * 1e-9
        for part in (slice(0, 5), slice(5, 12)):
            m = entry.message
            half = joint_state(now, m.name[part], m.position[part], m.velocity[part])
            result.append(entry._replace(message=half))
        gripper = joint_state(now, ["finger"], [0.1], [0.0])
        result.append(entry._replace(message=gripper))
    return result


def test_halves_of_the_joints_and_a_gripper_are_merged(made, tmp_path):
    _, (episode,) = converted(tmp_path, halves(made), made.robot)
    equal_to_live(episode, made)


def test_sensors_at_other_rates_are_seen_as_of_the_decision(made, tmp_path):
    """An IMU at 200 Hz whose samples between decisions are another robot's, and joints at 50 Hz."""
    between = []
    for entry in made.topic(IMU):
        stamp = entry.message.header.stamp
        for late in (0.005, 0.010, 0.015):
            other = imu(stamp.sec + stamp.nanosec * 1e-9 + late, (0.0, 0.0, 0.0, 1.0), (9.0, 9.0, 9.0))
            between.append(entry._replace(time=entry.time + late, message=other))
    entries = sorted(made.entries + between, key=lambda entry: entry.time)
    _, (episode,) = converted(tmp_path, entries, made.robot)
    equal_to_live(episode, made)


def test_simulated_stamps_of_the_imu_count_on_arrival(made, tmp_path):
    def simulated(entry):
        stamp = entry.message.header.stamp
        again = replace(
            entry.message, header=header(stamp.sec + stamp.nanosec * 1e-9 - 1_790_000_000.0 + 5.0)
        )
        return entry._replace(message=again, time=entry.time - 0.00019)

    mixed = [simulated(entry) if entry.topic == IMU else entry for entry in made.entries]
    report, (episode,) = converted(tmp_path, mixed, made.robot)
    assert len(episode) > 50
    assert any("imu" in note and "count as measured on arrival" in note for note in report.notes)


def test_a_clock_that_goes_back_a_gap_and_a_teleport_split_and_are_named(tmp_path):
    first, late = record(40), record(40, start=1_790_000_000.0 - 100.0)
    shifted = [entry._replace(time=entry.time + 110.0) for entry in late.entries]
    moved = record(40, start=1_790_000_000.0 + 5.0)
    entries = first.entries + [e._replace(time=e.time + 2.0) for e in moved.entries] + shifted
    report, found = converted(tmp_path, entries, first.robot)
    assert [len(episode) for episode in found] == [39, pytest.approx(39, abs=1), pytest.approx(38, abs=1)]
    for episode, of in zip(found[:2], (first, moved), strict=True):
        equal_to_live(episode, of)
    reasons = report.discarded()
    assert any("went back" in reason for reason in reasons), reasons
    assert sum(span.seconds for span in report.spans) == pytest.approx(report.end - report.begin, abs=1e-6)


def test_a_robot_that_is_put_elsewhere_begins_a_new_episode(made, tmp_path):
    entries, half = [], made.entries[len(made.entries) // 2].time
    for entry in made.entries:
        if entry.topic == ODOMETRY and entry.time > half:
            pose = entry.message.pose
            point = replace(pose.pose.position, x=pose.pose.position.x + 3.0)
            pose = replace(pose, pose=replace(pose.pose, position=point))
            entry = entry._replace(message=replace(entry.message, pose=pose))
        entries.append(entry)
    report, found = converted(tmp_path, entries, made.robot)
    assert len(found) == 2 and sum(map(len, found)) == 58
    assert not any(episode.terminated.any() for episode in found)


def test_a_fall_ends_its_episode_as_terminated_and_lying_is_discarded(made, tmp_path):
    entries, half = [], made.entries[len(made.entries) // 2].time
    for entry in made.entries:
        if entry.topic == IMU and entry.time > half:
            lying = replace(entry.message.orientation, x=np.sin(0.75), y=0.0, z=0.0, w=np.cos(0.75))
            up = replace(entry.message.linear_acceleration, x=0.0, y=0.0, z=0.0)
            entry = entry._replace(message=replace(entry.message, orientation=lying, linear_acceleration=up))
        entries.append(entry)
    report, (episode,) = converted(tmp_path, entries, made.robot)
    assert episode.terminated[-1] and not episode.terminated[:-1].any() and not episode.truncated
    assert report.discarded()["the robot lay after a fall"] > 0.4


def test_commands_at_another_rate_are_read_at_the_end_of_each_period(tmp_path):
    made = record(60)
    robot, entries = made.robot, made.without(TRAJECTORY, COMMAND)
    numbers = kind("std_msgs/msg/Float64MultiArray")
    layout = kind("std_msgs/msg/MultiArrayLayout")([], 0)
    begin = entries[0].time
    for k in range(int(1.2 * 250)):
        swing = 0.1 * np.sin(2.0 * k / 250)
        data = robot.default_position + swing
        topic = "/forward_position_controller/commands"
        entries.append(
            Entry(begin + 0.004 * k, topic, "std_msgs/msg/Float64MultiArray", numbers(layout, np.array(data)))
        )
    entries.sort(key=lambda entry: entry.time)
    report, found = converted(tmp_path, entries, robot, BagOptions())
    assert "50 times a second" in report.decided_by
    (episode,) = found
    ends = episode.raw["stamp"][:-1] + robot.control_period - begin
    wanted = robot.default_position + 0.1 * np.sin(2.0 * ends)[:, None]
    assert np.abs(episode.raw["target"] - wanted).max() < 0.002
    back = robot.default_position + robot.action_scale * episode.action
    assert np.abs(back - episode.raw["target"]).max() < 1e-6


def test_without_odometry_the_legs_tell_the_velocity_and_how_uncertain_it_is(made, tmp_path):
    report, (episode,) = converted(tmp_path, made.without(ODOMETRY), made.robot)
    assert np.isfinite(episode.reward).all()
    assert report.base_velocity["legs_and_imu"] == len(episode) and report.base_velocity["odometry"] == 0
    assert 0.0 < report.base_velocity["uncertainty"] < 0.5
    error = np.abs(episode.reward - np.array(made.reward[: len(episode)]))
    assert np.median(error) < 0.2


def test_without_efforts_the_term_is_masked_and_the_reward_is_nan(made, tmp_path):
    def mute(entry):
        return entry._replace(message=replace(entry.message, effort=np.zeros(0)))

    entries = [mute(entry) if entry.topic == JOINTS else entry for entry in made.entries]
    report, (episode,) = converted(tmp_path, entries, made.robot)
    assert np.isnan(episode.reward).all()
    assert report.rewards["effort"] and not report.rewards["upright"]
    equal_to_live(episode, made)


def test_several_bags_make_one_store_with_a_report_and_a_timeline(made, tmp_path):
    bags = [write_bag(tmp_path / name, made.entries, "sqlite3") for name in ("one", "two")]
    assert len(convert_bags(bags, made.robot, tmp_path / "out", EXACT)) == 2
    assert len(EpisodeStore(tmp_path / "out")) == 2
    report = json.loads(beside(tmp_path / "out", "report.json").read_text())
    assert [bag["bag"] for bag in report["bags"]] == ["one", "two"]
    assert beside(tmp_path / "out", "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_files_of_a_split_bag_come_in_the_order_of_their_numbers(made, tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    third = len(made.entries) // 3
    for number, part in ((9, made.entries[:third]), (10, made.entries[third:])):
        bag = write_bag(tmp_path / "part", part)
        next(bag.glob("*.mcap")).rename(folder / f"split_{number}.mcap")
    convert_bags([folder], made.robot, tmp_path / "out", EXACT)
    equal_to_live(*episodes(tmp_path / "out"), made)


def test_info_names_rates_losses_gaps_and_what_is_missing(made, tmp_path, capsys):
    entries = [e for k, e in enumerate(made.without(COMMAND)) if not (e.topic == JOINTS and k == 80)]
    late = [e._replace(time=e.time + 5.0) for e in made.topic(JOINTS)[:1]]
    bag = write_bag(tmp_path / "bag", [e for e in entries if e.topic != IMU] + late)
    assert main(["bag", "info", str(bag), "--json", str(tmp_path / "info.json")]) == 0
    text = capsys.readouterr().out
    assert "missing gyro: no topic of imu" in text and "joint_position" in text
    (found,) = json.loads((tmp_path / "info.json").read_text())["bags"]
    joints = next(topic for topic in found["topics"] if topic["topic"] == JOINTS)
    assert joints["rate_hz"] == pytest.approx(50.0, rel=0.05) and len(joints["gaps"]) == 1
    assert found["embodiment"] == "quadruped" and found["reward"]["effort"] == ""


# ---- bad input ----


def test_a_bag_that_is_cut_anywhere_gives_what_is_whole(made, tmp_path):
    rng = np.random.default_rng(1)
    for storage in ("mcap", "sqlite3"):
        bag = write_bag(tmp_path / storage, made.entries, storage)
        (file,) = (path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
        data, whole = file.read_bytes(), list(read_file(file, lambda channel: True, print))
        assert len(whole) == len(made.entries)
        for size in [len(data) - 1, *rng.integers(1, len(data), 12)]:
            file.write_bytes(data[:size])
            notes: list[str] = []
            try:
                found = list(read_file(file, lambda channel: True, notes.append))
            except UserError:
                assert size < 16
                continue
            assert found == whole[: len(found)] and (notes or len(found) == len(whole))
        assert len(found) >= 0


def test_a_cut_bag_still_gives_its_episode(made, tmp_path):
    bag = write_bag(tmp_path / "bag", made.entries, "sqlite3")
    (file,) = bag.glob("*.db3")
    file.write_bytes(file.read_bytes()[: int(0.6 * file.stat().st_size)])
    (report,) = convert_bags([bag], made.robot, tmp_path / "out", EXACT)
    (episode,) = episodes(tmp_path / "out")
    assert len(episode) > 15 and any("what comes before is kept" in note for note in report.notes)
    equal_to_live(episode, made)


def test_random_bytes_in_messages_are_refused_and_the_rest_is_kept(made, tmp_path):
    rng, spoilt = np.random.default_rng(2), []
    for number, entry in enumerate(made.entries):
        if entry.topic in (JOINTS, IMU) and number % 39 == 11:
            spoilt.append(entry._replace(message=rng.bytes(int(rng.integers(0, 300)))))
        spoilt.append(entry)
    report, found = converted(tmp_path, spoilt, made.robot)
    assert report.refused and sum(map(len, found)) > 40


def nothing(made, tmp_path):
    return write_bag(tmp_path / "empty", [])


def noise(made, tmp_path):
    path = tmp_path / "noise.mcap"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    return path


def wrong_type(made, tmp_path):
    renamed = [e._replace(topic=JOINTS) for e in made.topic(IMU)] + made.without(JOINTS, IMU)
    return write_bag(tmp_path / "wrong", renamed)


def renamed(entry, before):
    names = [f"{before}{name}" for name in entry.message.name]
    return entry._replace(message=replace(entry.message, name=names))


def another_robot(made, tmp_path):
    entries = [renamed(e, "arm_") if e.topic == JOINTS else e for e in made.entries]
    return write_bag(tmp_path / "other", entries)


def not_finite(made, tmp_path):
    bad = np.full(12, np.nan)
    entries = [
        e._replace(message=replace(e.message, position=bad)) if e.topic == JOINTS else e for e in made.entries
    ]
    return write_bag(tmp_path / "nan", entries)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nothing, "gives no episode"),
        (noise, "not a file of rosbag2"),
        (wrong_type, "is a sensor_msgs/msg/Imu"),
        (another_robot, "messages name none of them, but arm_FL_calf_joint"),
        (not_finite, "is nan"),
    ],
)
def test_a_bag_that_serves_nothing_is_one_sentence_and_leaves_nothing(made, tmp_path, capsys, make, said):
    bag, out = make(made, tmp_path), tmp_path / "out"
    assert main(["bag", "convert", str(bag), "--embodiment", "quadruped", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not out.exists() and not beside(out, "report.json").exists()


def test_joints_that_are_renamed_half_way_end_the_episode(made, tmp_path):
    half = made.entries[len(made.entries) // 2].time
    entries = [renamed(e, "x") if e.topic == JOINTS and e.time > half else e for e in made.entries]
    report, (episode,) = converted(tmp_path, entries, made.robot)
    assert 25 <= len(episode) <= 35 and "joints: too old" in " ".join(report.discarded())


def test_a_full_disk_keeps_finished_episodes(tmp_path, monkeypatch, capsys):
    made = record(60)
    monkeypatch.setattr("tdmpc2_core.data.bags.convert._SHORTEST", 2)
    short = replace(made.robot, episode_seconds=0.4)
    real, calls = EpisodeStore.append, []

    def full(store, *args, **more):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(28, "No space left on device", str(store.folder))
        return real(store, *args, **more)

    monkeypatch.setattr(EpisodeStore, "append", full)
    with pytest.raises(OSError):
        convert_bags([write_bag(tmp_path / "bag", made.entries)], short, tmp_path / "out", EXACT)
    assert len(EpisodeStore(tmp_path / "out")) == 2 and beside(tmp_path / "out", "report.json").exists()


def test_an_unwritable_store_is_one_sentence(made, tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", made.entries[:40])
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "store"
    assert main(["bag", "convert", str(bag), "--embodiment", "quadruped", "--out", str(out)]) == 2
    assert "choose a writable folder" in capsys.readouterr().err
