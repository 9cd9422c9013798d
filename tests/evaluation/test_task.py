"""Which videos a classifier learns from, is chosen on and is tested on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.config import FinetuneDataConfig
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.task import Task, make_task, split_numbers
from rspnet_cli.evaluation.videos import LabelledVideos
from rspnet_cli.progress import Reporter
from tests.evaluation.tables import make_table
from tests.sentences import refused


def task_of(videos: LabelledVideos, seed: int = 0, **data: str) -> Task:
    return make_task(videos, FinetuneDataConfig.model_validate(data), seed=seed, report=Reporter.silent())


@given(seed=st.integers(0, 20), split=st.booleans(), classes=st.integers(2, 4), groups=st.integers(4, 6))
def test_no_group_is_on_two_sides_and_every_class_is_learned(seed: int, split: bool, classes: int, groups: int) -> None:
    videos = make_table(classes=classes, groups=groups, split=split, seed=seed)
    task = task_of(videos, seed)
    sides = {"train": task.train, "validation": task.selection, "test": task.part.test}
    assert task.protocol == ("split" if split else "folds")
    assert sorted([*task.train, *task.selection]) == task.part.train.tolist()
    held: dict[int, str] = {}
    for name, rows in sides.items():
        assert len(rows)
        assert (np.diff(rows) > 0).all()
        for group in videos.group[rows].tolist():
            assert held.setdefault(group, name) == name
    assert set(videos.label[task.train]) == set(range(classes))
    expected = [next((name for name, rows in sides.items() if row in rows), "") for row in range(len(videos.videos))]
    assert task.parts().astype(str).tolist() == expected


def test_select_on_test_and_last_leave_all_of_train_to_learn_from() -> None:
    videos = make_table()
    test, last = task_of(videos, select_on="test"), task_of(videos, select_on="last")
    assert test.selection.tolist() == test.part.test.tolist()
    assert last.selection.tolist() == []
    for task in (test, last):
        assert task.train.tolist() == task.part.train.tolist() == np.flatnonzero(videos.videos["split_1"] == "train").tolist()
        assert task.parts().tolist().count(b"test") == len(task.part.test)


def test_labels_that_are_not_numbered_from_0_get_columns_and_unlabelled_videos_none() -> None:
    table = make_table(classes=3)
    label = np.array([7, 2, 9])[table.label]
    label[4] = -1
    videos = LabelledVideos(table.videos.assign(label=label))
    task = task_of(videos)
    assert task.labels.tolist() == [2, 7, 9]
    assert [task.labels[column] if column >= 0 else -1 for column in task.columns] == label.tolist()
    assert 4 not in {*task.train, *task.selection}


def test_classes_that_train_has_no_video_of_are_never_guessed() -> None:
    table = make_table(classes=3)
    frame = table.videos.copy()
    frame.loc[(frame["label"] == 1) & (frame["split_1"] == "train"), "split_1"] = ""
    scores = task_of(LabelledVideos(frame)).only_known(np.array([[0.0, 5.0, 1.0]]))
    assert scores.tolist() == [[0.0, -np.inf, 1.0]]


def test_splits_are_numbered_by_their_columns_and_folds_as_many_as_can_be_made() -> None:
    assert split_numbers(make_table(), seed=0) == ["1"]
    frame = make_table().videos
    assert split_numbers(LabelledVideos(frame.assign(split_3=frame["split_1"])), seed=0) == ["1", "3"]
    assert split_numbers(make_table(split=False, groups=6), seed=0) == ["1", "2", "3", "4", "5"]
    few = make_table(split=False, classes=2, groups=2)
    assert split_numbers(few, seed=0) == [str(fold) for fold in range(1, 1 + len(split_numbers(few, seed=0)))]
    assert 2 <= len(split_numbers(few, seed=0)) <= 4
    for number in split_numbers(few, seed=0):
        assert len(task_of(few, split=number, select_on="last").part.test)


def test_what_cannot_be_learned_is_refused() -> None:
    def refusal(videos: LabelledVideos, *words: str, **data: str) -> None:
        with pytest.raises(InputError) as caught:
            task_of(videos, **data)
        refused(caught.value, *words)

    refusal(make_table(labelled=False), "no labels", "--dataset")
    with pytest.raises(InputError):
        split_numbers(make_table(labelled=False), seed=0)
    refusal(make_table(classes=1), "two classes")
    refusal(make_table(), "no split 2", split="2")
    refusal(make_table(split=False), "no fold 9", "1, 2, 3, 4, 5", split="9")
    frame = make_table().videos
    one_group = LabelledVideos(frame.assign(group=frame["label_name"]))
    refusal(one_group, "--select-on test", "data.select_on=last")
    assert len(task_of(one_group, select_on="test").train)
