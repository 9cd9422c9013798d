"""Whether a folder is in use can be told from outside, and telling takes nothing away."""

import signal
from pathlib import Path

import pytest

from rspnet_cli import locks
from rspnet_cli.locks import hold_lock, is_held
from tests.processes import fork, kill, wait, wait_until


def hold(folder: Path) -> None:
    with hold_lock(folder):
        (folder / "held").write_text("")
        signal.pause()


@pytest.mark.parametrize("has_flock", [True, False])
def test_a_folder_is_held_while_its_holder_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_flock: bool) -> None:
    if not has_flock:
        monkeypatch.setattr(locks, "_flock", lambda handle, path: False)
    assert not is_held(tmp_path / "nowhere")
    child = fork(lambda: hold(tmp_path))
    try:
        wait_until((tmp_path / "held").exists, "the lock")
        assert is_held(tmp_path)
        assert is_held(tmp_path), "asking releases nothing"
    finally:
        kill(child)
        wait(child)
    assert not is_held(tmp_path)
    with hold_lock(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with hold_lock(tmp_path):
        pass
