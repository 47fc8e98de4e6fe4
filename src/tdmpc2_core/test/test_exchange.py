"""Episodes to other programs' layouts and back: equal bit for bit, and readable by their own code."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet
import pytest
from minari import MinariDataset

from tdmpc2_core.cli import main
from tdmpc2_core.data.episodes import Episode, EpisodeStore

ROWS = ("observation", "action", "reward", "terminated", "plan_mean", "plan_std", "has_plan", "value")


def episode(rng, steps, terminated):
    numbers = {
        name: rng.normal(size=(steps, 3)).astype(np.float32) for name in ("action", "plan_mean", "plan_std")
    }
    ended = np.zeros(steps, bool)
    ended[-1] = terminated
    reward = rng.normal(size=steps).astype(np.float32)
    reward[1] = np.nan
    return Episode(
        observation=rng.normal(size=(steps + 1, 5)).astype(np.float32),
        **numbers,
        reward=reward,
        terminated=ended,
        has_plan=rng.random(steps) > 0.5,
        value=np.full(steps, np.nan, np.float32),
        truncated=not terminated,
        task=int(terminated),
        raw={"stamp": 5.0 + 0.02 * np.arange(steps + 1), "target": rng.normal(size=(steps, 2))},
    )


@pytest.fixture
def store(tmp_path):
    made, rng = EpisodeStore(tmp_path / "store"), np.random.default_rng(0)
    for number, steps in enumerate((7, 2, 30)):
        made.append(episode(rng, steps, number == 1), source="bag", start=float(number))
    return made.folder


def same(left, right):
    for (a, about), (b, other) in zip(EpisodeStore(left), EpisodeStore(right), strict=True):
        assert about == other and (a.truncated, a.task) == (b.truncated, b.task)
        for name in ROWS:
            x, y = getattr(a, name), getattr(b, name)
            assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes(), name
        assert sorted(a.raw) == sorted(b.raw)
        assert all(a.raw[name].tobytes() == b.raw[name].tobytes() for name in a.raw)


@pytest.mark.parametrize("layout", ["lerobot", "minari"])
def test_a_store_comes_back_equal_bit_for_bit(store, tmp_path, layout):
    out, back = str(tmp_path / "out"), str(tmp_path / "back")
    assert main(["data", "export", str(store), "--to", layout, "--out", out]) == 0
    assert main(["data", "import", out, "--from", layout, "--out", back]) == 0
    same(store, back)


def test_a_store_without_plans_comes_back_equal_and_has_no_column_of_nothing(tmp_path):
    made, plain = EpisodeStore(tmp_path / "store"), episode(np.random.default_rng(1), 9, False)
    plain.plan_mean[:] = plain.plan_std[:] = 0.0
    plain.has_plan[:] = False
    made.append(plain)
    out, back = tmp_path / "out", str(tmp_path / "back")
    assert main(["data", "export", str(made.folder), "--to", "lerobot", "--out", str(out)]) == 0
    assert "value" not in pyarrow.parquet.read_table(next((out / "data").rglob("*.parquet"))).column_names
    assert main(["data", "import", str(out), "--from", "lerobot", "--out", back]) == 0
    same(made.folder, back)


def test_minari_reads_what_was_written(store, tmp_path):
    assert main(["data", "export", str(store), "--to", "minari", "--out", str(tmp_path / "out")]) == 0
    found = MinariDataset(tmp_path / "out" / "data")
    assert (found.total_episodes, found.total_steps) == (3, 39)
    for read, (made, _) in zip(found.iterate_episodes(), EpisodeStore(store), strict=True):
        assert np.array_equal(read.observations, made.observation)
        assert np.array_equal(read.rewards, made.reward, equal_nan=True)


def test_parquet_has_a_row_per_decision(store, tmp_path):
    assert main(["data", "export", str(store), "--to", "parquet", "--out", str(tmp_path / "out")]) == 0
    table = pyarrow.parquet.read_table(tmp_path / "out" / "decisions.parquet")
    assert table.num_rows == 39 and table.column("episode_index").to_pylist().count(2) == 30


def test_info_has_the_figures_of_every_entry(store, tmp_path, capsys):
    assert main(["data", "info", str(store), "--parquet", str(tmp_path / "figures.parquet")]) == 0
    assert "3 episodes, 39 decisions" in capsys.readouterr().out
    rows = {row["entry"]: row for row in pyarrow.parquet.read_table(tmp_path / "figures.parquet").to_pylist()}
    actions = np.concatenate([made.action for made, _ in EpisodeStore(store)]).astype(float)
    assert rows["action[1]"]["std"] == pytest.approx(actions[:, 1].std())
    assert rows["action[1]"]["mean"] == pytest.approx(actions[:, 1].mean())
    assert rows["reward[0]"]["count"] == 36 and rows["value[0]"]["count"] == 0


@pytest.mark.parametrize("command", ["info", "export"])
def test_a_damaged_episode_is_named_and_leaves_nothing(store, tmp_path, capsys, command):
    (store / "0000001.safetensors").write_bytes(b"nothing")
    more = ["--to", "lerobot", "--out", str(tmp_path / "out")] if command == "export" else []
    assert main(["data", command, str(store), *more]) == 2
    assert "0000001.safetensors" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_what_is_no_data_set_is_refused_in_a_sentence(store, tmp_path, capsys):
    for layout in ("lerobot", "minari"):
        assert main(["data", "import", str(store), "--from", layout, "--out", str(tmp_path / "out")]) == 2
        assert "is no data set" in capsys.readouterr().err
