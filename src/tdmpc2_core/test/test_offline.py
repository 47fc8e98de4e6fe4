"""Training on recorded episodes: the published layout of chunks, several tasks, several processes."""

import csv
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tdmpc2_core import cli
from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint.published_tasks import published_task
from tdmpc2_core.data.episodes import EpisodeRecorder, EpisodeStore
from tdmpc2_core.learning.shards import Shards, read_chunk

PUBLISHED = Path(__file__).parent / "fixtures/tensordict_chunk.pt"
SHORT = (
    *("model_size=tiny", "learner.batch_size=16", "log_every=10", "eval_every=1000", "checkpoint_every=1000"),
)


def recorded(task: str, index: int, length: int, seed: int = 0):
    """An episode of the sizes of a published task; rewards name it."""
    sizes, rng = published_task(task), np.random.default_rng(seed)
    recorder = EpisodeRecorder(rng.normal(size=sizes.obs_dim).astype(np.float32), index)
    for _ in range(length):
        action = rng.uniform(-1, 1, sizes.action_dim).astype(np.float32)
        recorder.add(rng.normal(size=sizes.obs_dim).astype(np.float32), action, float(index), False)
    return recorder.episode(truncated=True)


def chunk(episodes, observation_dim: int, action_dim: int) -> dict[str, torch.Tensor]:
    """Episodes of one length in the published layout, filled up with zeros to these sizes."""
    steps, count = len(episodes[0]), len(episodes)
    obs, action = torch.zeros(count, steps + 1, observation_dim), torch.zeros(count, steps + 1, action_dim)
    reward, task = torch.zeros(count, steps + 1), torch.zeros(count, steps + 1, dtype=torch.int32)
    for row, episode in enumerate(episodes):
        obs[row, :, : episode.observation.shape[1]] = torch.from_numpy(episode.observation)
        action[row, 1:, : episode.action.shape[1]] = torch.from_numpy(episode.action)
        reward[row, 1:] = torch.from_numpy(episode.reward)
        task[row] = episode.task
    return {"obs": obs, "action": action, "reward": reward, "task": task}


@pytest.fixture
def chunks(tmp_path):
    """Two chunks of two tasks, eight episodes each."""
    folder = tmp_path / "mt2"
    folder.mkdir()
    for number in range(2):
        episodes = [
            recorded(task, index, 20, 10 * number + seed)
            for index, task in enumerate(("cup-catch", "cartpole-swingup"))
            for seed in range(4)
        ]
        torch.save(chunk(episodes, 8, 2), folder / f"chunk_{number}.pt")
    return folder


def test_a_chunk_that_tensordict_wrote_is_read_without_it():
    assert "tensordict" not in sys.modules
    found = read_chunk(PUBLISHED)
    assert found["obs"].shape == (4, 12, 5) and found["action"].shape == (4, 12, 2)
    assert torch.equal(found["reward"].flatten(), torch.arange(48.0))
    assert torch.equal(found["task"][:, 0], torch.tensor([0, 1, 0, 1], dtype=torch.int32))


def test_windows_have_the_action_that_led_to_an_observation(tmp_path):
    (tmp_path / "chunk_0.pt").write_bytes(PUBLISHED.read_bytes())
    shards, whole = Shards(tmp_path, torch.Generator().manual_seed(0)), read_chunk(PUBLISHED)
    batch = shards.sample(200, 3)
    assert batch.obs.shape == (4, 200, 5) and batch.task.shape == (200,) and len(shards) == 44
    seen = set()
    for k in range(200):
        row = int(batch.reward[0, k, 0])  # rewards are numbered through episodes of 12 rows
        episode, after = divmod(row, 12)
        seen.add(row)
        assert 1 <= after <= 9  # row 0 is filler, and two more follow
        assert torch.equal(batch.obs[:, k], whole["obs"][episode, after - 1 : after + 3])
        assert torch.equal(batch.action[:, k], whole["action"][episode, after : after + 3])
        assert batch.task[k] == episode % 2
    assert len(seen) == 36  # 4 episodes, 9 starts each


class _Evil:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_files_that_are_no_chunks_are_refused_and_run_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    torch.save({"obs": _Evil()}, data / "chunk_0.pt")
    command = ["pretrain", f"data={data}", "tasks=a,b", "out=run", *SHORT]
    whole = PUBLISHED.read_bytes()
    for content in (None, b"", whole[: len(whole) // 2], b"nonsense"):
        if content is not None:
            (data / "chunk_0.pt").write_bytes(content)
        assert cli.main(command) == 2
        said = capsys.readouterr().err
        assert "is no chunk of episodes" in said and said.count("\n") == 1
    torch.save({"obs": torch.zeros(1, 2, 3)}, data / "chunk_0.pt")
    assert cli.main(command) == 2
    assert "a chunk has the tensors obs, action, reward, task" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists() and not (tmp_path / "run").exists()


def test_several_tasks_are_learned_from_chunks_and_go_on(chunks, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["pretrain", f"data={chunks}", "tasks=cup-catch,cartpole-swingup", f"out={out}", *SHORT]
    assert cli.main([*command, "updates=30"]) == 0
    assert cli.main([*command, "updates=40"]) == 0
    said = capsys.readouterr().out
    assert "320 decisions, update 30" in said
    agent = Agent.load(out / "checkpoint")
    assert agent.tasks == ("cup-catch", "cartpole-swingup") and agent.model.config.action_dims == (2, 1)
    with open(out / "train.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["10", "20", "30", "40"]
    assert cli.main([*command[:2], "tasks=cup-catch", f"out={tmp_path / 'other'}", *SHORT]) == 2
    assert "the chunks have 2 tasks and tasks=cup-catch names 1" in capsys.readouterr().err


def test_a_task_that_a_bundle_lacks_begins_as_a_similar_one(chunks, tmp_path, capsys):
    start = tmp_path / "run/checkpoint"
    first = ["pretrain", f"data={chunks}", "tasks=cup-catch,cartpole-swingup", f"out={start.parent}"]
    assert cli.main([*first, *SHORT, "updates=20"]) == 0
    store = EpisodeStore(tmp_path / "episodes")
    for seed in range(3):
        store.append(recorded("reacher-easy", 0, 20, seed))
    more = ["pretrain", f"data=reacher-easy={store.folder},cup-spin={store.folder}", f"start={start}"]
    assert cli.main([*more, f"out={tmp_path / 'none'}", *SHORT, "updates=1"]) == 2
    assert "knows no 'reacher-easy'; give like=reacher-easy=KNOWN_TASK" in capsys.readouterr().err
    like = "like=reacher-easy=cartpole-swingup,cup-spin=cup-catch"
    frozen = ["learner.lr=0", "learner.enc_lr_scale=0"]
    assert cli.main([*more, like, f"out={tmp_path / 'new'}", *SHORT, *frozen, "updates=1"]) == 0
    before, after = Agent.load(start), Agent.load(tmp_path / "new/checkpoint")
    assert after.tasks == ("reacher-easy", "cup-spin")
    torch.testing.assert_close(after.model.task_embedding, before.model.task_embedding[[1, 0]])


def _curve(folder: Path) -> np.ndarray:
    with open(folder / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[name]) for name in ("total_loss", "pi_loss", "pi_scale")] for row in rows])


def test_two_processes_follow_the_curve_of_one(chunks, tmp_path):
    """torchrun with half of the batch each, against one process with all of it: float noise apart."""
    train = ["-m", "tdmpc2_core.cli", "pretrain", f"data={chunks}", "tasks=cup-catch,cartpole-swingup"]
    train += [*SHORT, "updates=60"]
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *train]
    for name, words in (("alone", train), ("two", together)):
        command = [sys.executable, *words, f"out={tmp_path / name}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
    alone, two = _curve(tmp_path / "alone"), _curve(tmp_path / "two")
    assert alone.shape == (6, 3) and not np.allclose(alone[0], alone[-1], rtol=1e-3)
    total, policy, scale = np.abs(two - alone).T / np.abs(alone).T.clip(1e-3)
    assert max(total.max(), scale.max()) < 1e-3 and policy.max() < 1e-2
    one, other = (Agent.load(tmp_path / name / "checkpoint").model for name in ("alone", "two"))
    torch.testing.assert_close(one.dynamics.state_dict(), other.dynamics.state_dict(), rtol=1e-2, atol=1e-4)
