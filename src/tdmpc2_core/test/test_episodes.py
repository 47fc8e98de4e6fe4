"""Episode store: what is read is what was written; a writer killed with SIGKILL loses no finished episode."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_replay import numbered_episode

from tdmpc2_core.data.episodes import EpisodeStore, read_episode
from tdmpc2_core.errors import UserError


def test_round_trip_keeps_every_array_and_the_metadata(tmp_path):
    store = EpisodeStore(tmp_path)
    written = numbered_episode(7, 23, terminated=False)
    written.value[3] = np.nan
    store.append(written, source="test", lane=4)
    (read, metadata), *rest = list(EpisodeStore(tmp_path))
    assert not rest and metadata == {"source": "test", "lane": 4} and read.truncated
    for name in vars(written).keys() - {"truncated", "raw"}:
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))


def test_raw_arrays_keep_their_name_and_type(tmp_path):
    written = numbered_episode(7, 23, terminated=False)
    written.raw = {"stamp": 1.7e9 + np.arange(24) * 0.02, "target": np.ones((23, 5), np.float32)}
    read, _ = read_episode(EpisodeStore(tmp_path).append(written))
    assert read.raw.keys() == written.raw.keys()
    for name, values in written.raw.items():
        assert read.raw[name].dtype == values.dtype
        np.testing.assert_array_equal(read.raw[name], values)


def test_numbers_go_on_after_reopening(tmp_path):
    EpisodeStore(tmp_path).append(numbered_episode(0, 5, terminated=True))
    EpisodeStore(tmp_path).append(numbered_episode(0, 6, terminated=True))
    assert [len(episode) for episode, _ in EpisodeStore(tmp_path)] == [5, 6]


def test_killed_writer_leaves_only_whole_episodes(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from test_replay import numbered_episode\n"
        "from tdmpc2_core.data.episodes import EpisodeStore\n"
        "store = EpisodeStore(sys.argv[1])\n"
        "while True:\n"
        "    store.append(numbered_episode(0, 4000, terminated=True)); print(len(store), flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), os.path.dirname(__file__)],
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(3):
        finished = int(process.stdout.readline())
    time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = EpisodeStore(tmp_path)
    assert len(store) >= finished
    assert all(len(episode) == 4000 for episode, _ in store)
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_damaged_episode_is_named(tmp_path):
    path = EpisodeStore(tmp_path).append(numbered_episode(0, 50, terminated=True))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=path.name):
        read_episode(path)


def test_unwritable_folder_is_one_sentence(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(UserError, match="choose a writable folder"):
        EpisodeStore(blocker / "episodes")
