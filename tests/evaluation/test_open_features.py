"""Features read in part: the same as those read whole, and nothing amiss gets past the reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.features_file import read_features
from rspnet_cli.evaluation.open_features import FEATURES, VIDEOS, open_features
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.stage import begin_stage
from rspnet_cli.tensors import write_tensors
from tests.evaluation.tables import make_export, make_table
from tests.sentences import refused


def test_what_is_read_in_part_is_what_is_read_whole(tmp_path: Path) -> None:
    export = make_export(tmp_path / "export", make_table())
    whole = read_features(export.folder, with_clips=True)
    assert whole.clip_features is not None
    with open_features(export) as part:
        np.testing.assert_array_equal(part.features, whole.features)
        assert part.ids == whole.videos["id"].tolist()
        assert part.label_names == whole.videos["label_name"].tolist()
        assert part.sources == whole.videos["source"].tolist()
        for row in (0, 7, len(part.ids) - 1):
            features, times_s = part.clips(row)
            np.testing.assert_array_equal(features, whole.clip_features[row])
            np.testing.assert_array_equal(times_s, whole.clip_times_s[row])


def test_videos_without_labels_have_empty_names(tmp_path: Path) -> None:
    with open_features(make_export(tmp_path / "export", make_table(labelled=False))) as part:
        assert set(part.label_names) == {""}


def hostile(folder: Path, change: Callable[[dict[str, np.ndarray], list[str]], object]) -> Manifest:
    """An export whose files are whole by their hashes, and not what they should be."""
    table = make_table(videos=1)
    assert table.clip_features is not None
    tensors = {"features": table.features, "clip_features": table.clip_features, "clip_times_s": table.clip_times_s}
    lines = ["id,source,label_name", *(f"{name},{name}.mp4,x" for name in table.videos["id"])]
    change(tensors, lines)
    with begin_stage("export-features", {}, inputs={}, out=folder) as stage:
        write_tensors(stage.work / FEATURES, tensors, {})
        (stage.work / VIDEOS).write_text("\n".join([*lines, ""]))
        return stage.finish(results={}, artifacts=[FEATURES, VIDEOS])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors, lines: tensors["features"].__setitem__((3, 0), np.nan), "'features' holds values that are not finite"),
        (lambda tensors, lines: tensors.update(features=tensors["features"].astype(np.float64)), "is F64"),
        (lambda tensors, lines: tensors.update(clip_features=tensors["clip_features"][:, :, :-1].copy()), "'clip_features' is F32"),
        (lambda tensors, lines: tensors.pop("clip_times_s"), "no tensor 'clip_times_s'"),
        (lambda tensors, lines: lines.pop(), "instead of F32 [14, any]"),
        (lambda tensors, lines: lines.append(lines[1]), "is no list of videos"),
        (lambda tensors, lines: lines.__setitem__(0, "id,source,class"), "is no list of videos"),
        (lambda tensors, lines: lines.__delitem__(slice(1, None)), "is no list of videos"),
    ],
    ids=["nan", "kind", "channels", "missing", "fewer rows", "twice", "columns", "empty"],
)
def test_content_that_is_no_export_is_one_sentence(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray], list[str]], object], words: str
) -> None:
    export = hostile(tmp_path / "export", change)
    with pytest.raises(InputError) as error, open_features(export):
        pass
    refused(error.value, words, "rspnet export-features --force")


def test_clips_are_checked_when_they_are_read(tmp_path: Path) -> None:
    export = hostile(tmp_path / "export", lambda tensors, _: tensors["clip_features"].__setitem__((3, 1, 0), np.inf))
    with open_features(export) as part:
        part.clips(2)
        with pytest.raises(InputError) as error:
            part.clips(3)
    refused(error.value, part.ids[3], "not finite")


def test_files_that_are_not_those_of_the_manifest_are_found(tmp_path: Path) -> None:
    export = make_export(tmp_path / "export", make_table())

    def fault(file: str, content: bytes) -> str:
        path = export.folder / file
        before = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(InputError) as error, open_features(read_manifest(export.folder, verify=False)):
            pass
        path.write_bytes(before)
        return refused(error.value, file)

    assert "bytes, not the" in fault(FEATURES, b"short")
    text = (export.folder / VIDEOS).read_bytes()
    assert "was changed" in fault(VIDEOS, text.replace(b"class 1", b"class 9"))
    (export.folder / FEATURES).unlink()
    with pytest.raises(InputError, match="is missing"), open_features(export):
        pass
