"""The table of an extraction: every video with its own frame file, whatever the order; what does not fit is refused; memory stays small."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rspnet_cli.tables.table as module
from rspnet_cli.errors import InputError
from rspnet_cli.file_index import INDEX, Entry
from rspnet_cli.manifest import Artifact, Listed, Manifest
from rspnet_cli.settling import listed_artifact
from rspnet_cli.stage import begin_stage
from rspnet_cli.tables import FILES, PRETRAIN_VIDEOS, VIDEOS, csv_bytes, read_rows
from rspnet_cli.videos.extraction import StoreLayout
from rspnet_cli.videos.frames import read_frames
from rspnet_cli.videos.seen import write_trained_videos
from tests.sentences import refused


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def video_row(number: int, frames_file: str, **values: Any) -> dict[str, Any]:
    name = f"a_class__a_video_of_a_usual_name_{number:06d}"
    return {
        "id": name,
        "frames_file": frames_file.format(name),
        "source": f"{name}.mp4",
        "label": number % 7,
        "label_name": f"class {number % 7}",
        "group": f"group {number // 2}",
        "split_1": "test" if number % 5 == 0 else "train",
        "frames": 20 + number % 9,
        "fps": 25 + number % 3 / 7,
        "width": 40,
        "height": 32,
        "bytes": 1,
        "sha256": hash_of(name),
        "repaired_timestamps": 0,
        "corrupt_frames": 0,
        "partial": False,
    } | values


def extraction(folder: Path, videos: Sequence[dict[str, Any]], files: Sequence[dict[str, Any]], *, schema: int = 2) -> Manifest:
    """The manifest of an extraction with these tables, whose frame files are not there."""
    with begin_stage("extract", {}, inputs={}, out=folder) as stage:
        manifest = stage.finish(results={})
    (folder / VIDEOS.file).write_bytes(csv_bytes(VIDEOS.header(["split_1"]), videos))
    manifest.artifacts = [listed_artifact(folder, VIDEOS.file)]
    if schema == 1:
        manifest.artifacts += [Artifact.model_validate(file) for file in files]
        return manifest
    (folder / INDEX).write_bytes(csv_bytes(FILES.header(), files))
    listed = Listed(folder="frames/", files=len(files), bytes=0)
    manifest.artifacts.append(listed_artifact(folder, INDEX).model_copy(update={"lists": listed}))
    return manifest


def entry(path: str) -> dict[str, Any]:
    return Entry(path, len(path), hash_of(path))._asdict()


LAYOUTS = {
    "in one folder": (lambda name: f"frames/{name}.mp4", ""),
    "in folders": (lambda name: StoreLayout("h264", in_folders=True).name(name), ""),
    "folders of pictures": (lambda name: f"frames/{name}", "/"),
}


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_video_has_its_own_frame_file_whatever_the_order_of_both(tmp_path: Path, kind: str, schema: int) -> None:
    name, slash = LAYOUTS[kind]
    # Of "a", "a-b" and "a.b" the first comes last where a slash follows.
    ids = ["a", "a-b", "a.b", *(f"v{number}" for number in range(30))]
    videos = [video_row(number, name(video_id), id=video_id) for number, video_id in enumerate(ids)]
    paths = sorted(row["frames_file"] + slash for row in videos)
    assert kind == "in one folder" or paths != [row["frames_file"] + slash for row in videos]
    table = read_frames(extraction(tmp_path, videos, [entry(path) for path in paths], schema=schema))
    expected = [row["frames_file"] + slash for row in videos]
    files = table.files
    assert [path.decode() for path in files.paths.tolist()] == expected
    assert [digest.tobytes().hex() for digest in files.hashes] == [hash_of(path) for path in expected]
    assert files.sizes.tolist() == [len(path) for path in expected]
    assert table.frames.tolist() == [row["frames"] for row in videos]
    assert table.fps.tolist() == [row["fps"] for row in videos]


def test_what_is_not_kept_is_read_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 4)
    videos = [video_row(number, "frames/{}.mp4") for number in range(10)]
    table = read_frames(extraction(tmp_path, videos, [entry(row["frames_file"]) for row in videos]))
    ids = [row["id"] for row in videos]
    assert table.ids == ids
    assert table.ids_of([7, 0]) == [ids[7], ids[0]]
    assert table.rows_of({ids[9], ids[4], "elsewhere"}) == {ids[4]: 4, ids[9]: 9}
    assert table.rows_of_split("1", "test").tolist() == [0, 5]
    assert table.array("label").tolist() == [row["label"] for row in videos]
    assert table.read("source", rows=slice(3, 5))["source"].tolist() == [row["source"] for row in videos[3:5]]
    (tmp_path / VIDEOS.file).write_bytes(csv_bytes(VIDEOS.header(["split_1"]), videos[::-1]))  # as long, and another extraction's
    with pytest.raises(InputError) as caught:
        table.array("id")
    refused(caught.value, str(tmp_path / VIDEOS.file), "was changed", "rspnet extract --force")


WRONG = {
    "no videos": (lambda videos, files: videos.clear(), "rows without frames"),
    "a video without frames": (lambda videos, files: videos[1].update(frames=0), "rows without frames"),
    "a video of an unknown number of frames": (lambda videos, files: videos[1].update(frames=None), "rows without frames"),
    "a video without a rate": (lambda videos, files: videos[1].update(fps=None), "rows without frames"),
    "a video without a file": (lambda videos, files: files.pop(1), "rows without frames"),
    "a video of another file": (lambda videos, files: videos[1].update(frames_file="frames/x.mp4"), "rows without frames"),
    "a file without a size": (lambda videos, files: files[1].update(bytes=None), "rows without size"),
    "a file without a hash": (lambda videos, files: files[1].update(sha256=""), "rows without size"),
    "a short hash": (lambda videos, files: files[1].update(sha256="ab" * 31), "rows without size"),
    "a long hash": (lambda videos, files: files[1].update(sha256="ab" * 33), "rows without size"),
    "no hash": (lambda videos, files: files[1].update(sha256="x" * 64), "rows without size"),
    "files in disorder": (lambda videos, files: files.reverse(), "not sorted"),
    "a file twice": (lambda videos, files: files.insert(1, files[1]), "not sorted"),
}


@pytest.mark.parametrize("what", WRONG)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, what: str) -> None:
    videos = [video_row(number, "frames/{}.mp4") for number in range(4)]
    files = [entry(row["frames_file"]) for row in videos]
    change, words = WRONG[what]
    change(videos, files)
    with pytest.raises(InputError) as caught:
        read_frames(extraction(tmp_path, videos, files))
    refused(caught.value, words, "make it anew with `rspnet extract --force`")


def test_memory_stays_at_a_few_hundred_bytes_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pretraining's parent: the table, the videos of a split, and what it writes of all of them."""
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 1_000)  # what a piece takes does not grow
    peaks = []
    for count in (10, 4_000, 20_000):  # the first time imports what is needed
        videos = [video_row(number, "frames/{}.mp4") for number in range(count)]
        files = [entry(row["frames_file"]) for row in videos]
        manifest = extraction(tmp_path / str(count), videos, files)
        del videos, files
        tracemalloc.start()
        try:
            table = read_frames(manifest)
            used = np.full(len(table), b"False")
            used[table.rows_of_split("1", "train")] = b"True"
            write_trained_videos(tmp_path, PRETRAIN_VIDEOS, table, {"used": used})
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert (peaks[2] - peaks[1]) / 16_000 < 250  # 112; as a pandas table 324
    written = read_rows(tmp_path / PRETRAIN_VIDEOS.file)
    assert len(written) == 20_000
    assert written[5] == {"id": table.ids_of([5])[0], "used": "False", "sha256": hash_of(table.ids_of([5])[0])}
