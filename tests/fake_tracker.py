"""A tracker as another package would bring it: a module and the metadata of its distribution, in a folder that goes on sys.path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_MODULE = """
import json, os

class Fake:
    def __init__(self, run):
        self.path = run.folder / "log.jsonl"
        self._write(event="start", stage=run.stage, name=run.name, id=run.id, last_step=run.last_step, settings=dict(run.settings))
        print("the tracker talks")
        if "start" in os.environ.get("FAKE_TRACKER_FAILS", ""):
            raise ConnectionError("no server\\nat all")

    def log(self, step, figures):
        if f"step {step};" in os.environ.get("FAKE_TRACKER_FAILS", ""):
            raise ConnectionError("the server has gone")
        self._write(event="log", step=step, figures=dict(figures))

    def close(self):
        self._write(event="close")
        if "close" in os.environ.get("FAKE_TRACKER_FAILS", ""):
            raise OSError("not closed")

    def _write(self, **event):
        with self.path.open("a") as file:
            file.write(json.dumps(event) + "\\n")
"""


def install(folder: Path) -> Path:
    """Put the tracker `fake` into a folder. FAKE_TRACKER_FAILS in the environment: "start", "step N;" or "close", where it raises."""
    info = folder / "fake_tracker-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "fake_tracker.py").write_text(_MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-tracker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rspnet.trackers]\nfake = fake_tracker:Fake\n")
    return folder


def events(folder: Path, event: str | None = None) -> list[dict[str, Any]]:
    """What the tracker was told, in a stage's folder (or its unfinished one), oldest first; of one kind."""
    lines = (folder / "trackers" / "fake" / "log.jsonl").read_text().splitlines()
    return [told for told in map(json.loads, lines) if event in (None, told["event"])]
