"""A disk that is full while a recorder writes to it, where this machine permits to mount one."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fault_world import World, wait
from rosbags.highlevel import AnyReader

from tdmpc2_core.errors import UserError

_DISK = "1m"


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A folder on a disk of its own. Raises UserError where none may be mounted."""
    with tempfile.TemporaryDirectory(prefix="tdmpc2_disk_") as folder:
        _call("mount", "-t", "tmpfs", "-o", f"size={_DISK}", "none", folder)
        try:
            yield Path(folder)
        finally:
            _call("umount", folder)


def full_disk(world: World) -> tuple[str, str]:
    """Record to a small disk until it is full: how the recorder ended, and what it said."""
    with small_disk() as folder:
        bag = folder / "bag"
        parameters = {"output": str(bag), "storage": "sqlite3"}
        recorder = world.children.start("recorder", "tdmpc2_ros.recorder.node", parameters, urgent=False)
        if not wait(lambda: recorder.process.poll() is not None, 60.0, 0.05):
            raise UserError("the recorder does not notice a full disk")
        with AnyReader([bag]) as reader:
            count = sum(1 for _ in reader.messages())
        text = (recorder.complaint() or "").rpartition("]: ")[2].replace(str(bag), "bag")
        return f"bag of {count} messages is whole", f"recorder, code {recorder.process.poll()}: {text}"


def _call(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        reason = getattr(problem, "stderr", "") or str(problem)
        raise UserError(f"{' '.join(words[:3])}: not permitted here ({' '.join(reason.split())})") from None
