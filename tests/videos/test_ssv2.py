import json
from pathlib import Path
from typing import Any

import pytest

from rspnet_cli.errors import InputError
from rspnet_cli.videos.sources import find_videos
from tests.layouts import by_path, paths, reasons, touch
from tests.sentences import refused

CLASSES = {"Putting something on something": "1", "Pushing something from left to right": "0"}
PUT, PUSH = "Putting [something] on [something]", "Pushing [something] from left to right"
TRAIN = [("78687", PUT), ("9", PUSH), ("10", PUSH)]
VALIDATION = [("220", PUT)]
LONG = "something-something-v2-{}.json"


def item(video_id: str, template: str) -> dict[str, Any]:
    return {"id": video_id, "label": "putting a cup on a table", "template": template, "placeholders": ["a cup", "a table"]}


def ssv2(tmp_path: Path, *, folder: str = "annotations", name: str = LONG, **changes: Any) -> Path:
    """The videos and their lists; changes: the content of a list."""
    content: dict[str, Any] = {
        "labels": CLASSES,
        "train": [item(*entry) for entry in TRAIN],
        "validation": [item(*entry) for entry in VALIDATION],
        "test": [{"id": "5"}],
    } | changes
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for key, value in content.items():
        if value is not None:
            (tmp_path / folder / name.format(key)).write_text(value if isinstance(value, str) else json.dumps(value))
    return touch(tmp_path / "20bn-something-something-v2", "78687.webm", "9.webm", "10.mp4", "220.webm", "5.webm")


def test_templates_without_brackets_are_the_classes_and_validation_is_what_is_tested(tmp_path: Path) -> None:
    table = find_videos(ssv2(tmp_path))
    assert table.dataset == "ssv2"
    assert (table.classes, table.split_names) == (("Pushing something from left to right", "Putting something on something"), ("split_1",))
    assert {path: (video.label, video.splits, video.group) for path, video in by_path(table).items()} == {
        "78687.webm": (1, ("train",), ""),
        "9.webm": (0, ("train",), ""),
        "10.mp4": (0, ("train",), ""),
        "220.webm": (1, ("test",), ""),
    }
    assert "1 video of the test list left out: it has no labels (--dataset plain takes all)." in table.notes
    assert "Split 1 tests on the validation videos, as publications do." in table.notes
    assert (table.failures, table.warnings) == ((), ())


@pytest.mark.parametrize(
    ("folder", "name"), [("annotations", LONG), ("20bn-something-something-v2/labels", LONG), (".", LONG), ("elsewhere", "{}.json")]
)
def test_the_lists_are_found_under_both_of_their_names(tmp_path: Path, folder: str, name: str) -> None:
    root = ssv2(tmp_path, folder=folder, name=name)
    table = find_videos(root, dataset="ssv2", annotations=tmp_path / folder) if folder == "elsewhere" else find_videos(root)
    assert len(table.videos) == 4


def test_missing_and_unlisted_videos_are_counted(tmp_path: Path) -> None:
    root = ssv2(tmp_path, test=None)
    (root / "9.webm").unlink()
    touch(root, "77.webm", "10.webm")
    table = find_videos(root)
    assert reasons(table) == {
        "9": "is named in something-something-v2-train.json, but not there",
        "10.webm": "is by its name the same video as 10.mp4, which is taken for it",
    }
    assert (table.missing, table.extra) == (("9",), ("5.webm", "77.webm"))
    assert f"2 videos in no list of {tmp_path / 'annotations'} (5.webm, 77.webm): left out." in table.warnings


def test_an_id_that_is_listed_twice_is_counted_and_one_in_both_lists_is_refused(tmp_path: Path) -> None:
    root = ssv2(tmp_path, train=[item(*entry) for entry in [*TRAIN, TRAIN[0]]])
    assert any("1 entry repeated" in warning and "(78687)" in warning for warning in find_videos(root).warnings)
    ssv2(tmp_path, validation=[item(*TRAIN[0])])
    with pytest.raises(InputError, match=r"validation\.json, item 1: 78687 is in the train and in the test list of split 1"):
        find_videos(root)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": "[" * 100_000}, "labels.json is no JSON that can be read"),
        ({"labels": "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")}, "labels.json is no JSON that can be read"),
        ({"labels": []}, "is no object of class names and numbers"),
        ({"labels": {"a": "0", "b": "2"}}, "does not number its 2 classes from 0 to 1"),
        ({"labels": {"a": "0", "b": "0"}}, "does not number its 2 classes from 0 to 1"),
        ({"train": {}}, "train.json is no list of videos"),
        ({"train": [{"template": PUT}]}, "train.json, item 1: it has no id made of digits"),
        ({"train": [item("../../etc/passwd", PUT)]}, "train.json, item 1: it has no id made of digits"),
        ({"train": ["78687"]}, "train.json, item 1: it has no id made of digits"),
        ({"train": [item("1", "Eating [something]")]}, "item 1: the template 'Eating [something]' is no class"),
        ({"train": [{"id": 1, "template": 5}]}, "item 1: the template '5' is no class"),
        ({"validation": None}, "holds neither something-something-v2-validation.json nor validation.json"),
    ],
)
def test_lists_of_another_form_are_refused_by_file_and_item(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    root = ssv2(tmp_path, **changes)
    with pytest.raises(InputError) as error:
        find_videos(root, dataset="ssv2")
    refused(error.value, words)


def test_without_lists_it_says_what_is_needed(tmp_path: Path) -> None:
    root = touch(tmp_path / "videos", "1.webm")
    with pytest.raises(InputError) as error:
        find_videos(root, dataset="ssv2")
    refused(error.value, "There is no something-something-v2-labels.json in or beside", "--annotations")
    assert paths(find_videos(root)) == ["1.webm"]
