"""The features file: what is written is read back, and nothing amiss gets past the reader."""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.features_file import FEATURES, VIDEOS, FeatureTable, read_features, read_videos, write_features
from rspnet_cli.evaluation.videos import group_numbers
from tests.evaluation.tables import make_table

ADVICE = "make the features anew with `rspnet export-features --force`"


def assert_equal_tables(found: FeatureTable, expected: FeatureTable) -> None:
    for name in ("features", "clip_features", "clip_times_s", "video_index", "label", "group"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    pd.testing.assert_frame_equal(found.videos[expected.videos.columns], expected.videos, check_dtype=False)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    table = make_table()
    write_features(tmp_path, table)
    found = read_features(tmp_path, with_clips=True)
    assert_equal_tables(found, table)
    assert found.metadata["backbone"] == "none"
    assert json.loads(found.metadata["class_names"]) == ["class 0", "class 1", "class 2"]
    assert found.features.dtype == np.float32
    assert found.clip_times_s.dtype == np.float64
    assert found.splits == [1]
    assert read_features(tmp_path).clip_features is None


def test_pandas_and_safetensors_are_enough_to_use_it(tmp_path: Path) -> None:
    table = make_table()
    write_features(tmp_path, table)
    tensors, videos = load_file(tmp_path / FEATURES), pd.read_csv(tmp_path / VIDEOS)
    assert set(tensors) == {"features", "clip_features", "clip_times_s", "label", "group", "video_index"}
    np.testing.assert_array_equal(tensors["features"], table.features)
    np.testing.assert_array_equal(tensors["label"], videos["label"])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("ab\"',; \\ü😀", max_size=6), st.sampled_from(["NA", "None", "", "nan", "1", " x "])), min_size=1, max_size=5
    )
)
def test_any_words_survive(tmp_path_factory: pytest.TempPathFactory, words: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("words")
    names = sorted({name for _, name in words if name})
    table = make_table(classes=1, groups=1, videos=len(words))
    table.videos["source"] = [source for source, _ in words]
    table.videos["label_name"] = [name for _, name in words]
    table.videos["label"] = [names.index(name) if name else -1 for _, name in words]
    write_features(folder, table)
    assert_equal_tables(read_features(folder, with_clips=True), table)


def test_equal_content_has_equal_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.evaluation.tables import make_table; "
        "from rspnet_cli.evaluation.features_file import write_features; write_features(Path(sys.argv[1]), make_table())"
    )
    contents = set()
    for run in range(2):
        folder = tmp_path / str(run)
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
        contents.add((folder / FEATURES).read_bytes() + (folder / VIDEOS).read_bytes())
    assert len(contents) == 1


def test_a_video_without_a_group_is_alone_even_if_a_group_has_its_name() -> None:
    videos = pd.DataFrame({"id": ["a", "b", "c", "d"], "group": ["x", "", "b", "x"]})
    assert group_numbers(videos).tolist() == [0, 1, 2, 0]


def test_a_set_without_labels_or_groups_is_read(tmp_path: Path) -> None:
    table = make_table(labelled=False, split=False)
    table.videos["group"] = ""
    write_features(tmp_path, table)
    found = read_features(tmp_path)
    assert (found.label == -1).all()
    assert found.class_names == {}
    assert found.splits == []
    assert len(set(found.group.tolist())) == len(table.videos)


def header(fields: object, data: bytes = b"") -> bytes:
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: str, shape: list[int], end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


HOSTILE = {
    "empty": b"",
    "three bytes": b"abc",
    "header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "header longer than the file": struct.pack("<Q", 5000) + b"{}",
    "not JSON": header(b"hello"),
    "a list": header([]),
    "nested 100,000 deep": header(b"[" * 100_000),
    "not UTF-8": header(b'{"\xff":1}'),
    "metadata that is no text": header({"__metadata__": {"x": 1}}),
    "overlapping tensors": header({"features": tensor("F32", [2], 8), "label": tensor("F32", [2], 8)}, bytes(8)),
    "a size beyond 64 bits": header({"features": tensor("F32", [2**62, 2**62], 8)}, bytes(8)),
    "no videos, and 2^124 channels": header({"features": tensor("F32", [0, 2**62, 2**62], 0)}),
    "another type": header({"features": tensor("BF16", [45, 6], 540)}, bytes(540)),
    "4-bit numbers": header({"features": tensor("F4", [45, 6], 135)}, bytes(135)),
    "nothing": header({}),
    "a pickle": b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    write_features(tmp_path, make_table())
    (tmp_path / FEATURES).write_bytes(HOSTILE[name])
    with pytest.raises(InputError, match=r"features\.safetensors") as refused:
        read_features(tmp_path)
    assert str(refused.value).endswith(f"{ADVICE}.")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < len(str(tmp_path)) + 500


def _drop(name: str) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda tensors: tensors.__delitem__(name)


def _change(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda tensors: tensors.__setitem__(name, np.ascontiguousarray(change(tensors[name])))


def _put(name: str, place: tuple[int, ...], value: float) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda tensors: tensors[name].__setitem__(place, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_drop("group"), "has no tensor 'group'"),
        (_change("features", lambda values: values[:-1]), "tensor 'features' is F32 [44, 6] instead of F32 [45, any]"),
        (_change("features", lambda values: values.astype(np.float64)), "is F64 [45, 6] instead of F32"),
        (_change("features", lambda values: values[:, :0]), "is F32 [45, 0] instead of"),
        (_change("clip_features", lambda values: values[:, :, :5]), "'clip_features' is F32 [45, 2, 5] instead of F32 [45, any, 6]"),
        (_change("clip_times_s", lambda values: values[:, :1]), "'clip_times_s' is F64 [45, 1, 2]"),
        (_put("features", (3, 2), np.nan), "'features' holds values that are not finite"),
        (_put("features", (0, 0), np.inf), "'features' holds values that are not finite"),
        (_put("clip_times_s", (1, 0, 0), np.nan), "'clip_times_s' holds values that are not finite"),
        (_put("label", (7,), 2), "disagree about the label"),
        (_put("group", (7,), 99), "disagree about the group"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, change: Callable[[dict[str, np.ndarray]], None], said: str) -> None:
    write_features(tmp_path, make_table())
    tensors = load_file(tmp_path / FEATURES)
    change(tensors)
    save_file(tensors, tmp_path / FEATURES)
    with pytest.raises(InputError) as refused:
        read_features(tmp_path)
    assert said in str(refused.value)
    assert str(refused.value).endswith(f"{ADVICE}.")


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("seen", ["yes"], "column 'seen' holds something else"),
        ("label", ["x"], "column 'label' holds something else than numbers"),
        ("label", ["-1"], "column 'label' holds a negative number"),
        ("label", [""], "a video has a class name and no label"),
        ("label", ["99999999999999999999"], "column 'label' holds something else"),
        ("label_name", ["class 1"], "do not belong together one to one"),
        ("fps", ["inf"], "column 'fps' holds a number that is not finite"),
        ("frames", ["1.5"], "column 'frames' holds something else"),
        ("id", ["c0_g0_1"], "are not all there and different"),
        ("id", [""], "are not all there and different"),
        ("split_1", ["training"], "column split_1 holds 'training'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, column: str, values: list[str], said: str) -> None:
    write_features(tmp_path, make_table())
    videos = pd.read_csv(tmp_path / VIDEOS, dtype=str, keep_default_na=False)
    videos.loc[: len(values) - 1, column] = values
    videos.to_csv(tmp_path / VIDEOS, index=False)
    with pytest.raises(InputError) as refused:
        read_videos(tmp_path / VIDEOS)
    assert said in str(refused.value)
    assert str(refused.value).endswith(f"{ADVICE}.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a readable table"),
        (b"\xff\xfe\x00", "is not a readable table"),
        (b"id,source\na,b\n", "lacks the column 'label'"),
        (b"id,source,label,label_name,group,frames,fps,seen\n", "lists no videos"),
        (b'id,source\n"a,b\n', "is not a readable table"),
        (b"id\n1,2\n3,4,5\n", "is not a readable table"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / VIDEOS).write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_videos(tmp_path / VIDEOS)
    assert said in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"videos\.csv"):
        read_features(tmp_path)
    write_features(tmp_path, make_table())
    (tmp_path / FEATURES).unlink()
    with pytest.raises(InputError, match=r"features\.safetensors"):
        read_features(tmp_path)


def test_a_table_of_other_rows_is_refused(tmp_path: Path) -> None:
    write_features(tmp_path, make_table())
    other = make_table()
    videos = dataclasses.replace(other, videos=other.videos.iloc[:-1]).videos
    videos.to_csv(tmp_path / VIDEOS, index=False)
    with pytest.raises(InputError, match=r"instead of F32 \[44, any\]"):
        read_features(tmp_path)
