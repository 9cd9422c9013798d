"""Shards are numbered as Slurm's users number them, share out all evenly, and are refused by name where they do not belong together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest
from rspnet_cli.shards import Shard, is_output, read_shards, refuse_other_siblings, shard_folders
from rspnet_cli.stage import begin_stage
from tests.sentences import refused
from tests.test_manifest import edit


@pytest.mark.parametrize(("text", "shard"), [("1/1", Shard(1, 1)), ("3/64", Shard(3, 64)), ("64/64", Shard(64, 64))])
def test_shards_count_from_one(text: str, shard: Shard) -> None:
    assert Shard.parse(text) == shard
    assert str(shard) == text
    assert shard.folder(Path("run/extract")) == Path(f"run/extract.shard-{shard.index}-of-{shard.count}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0/64", ["from 1 to 64", "--array=1-64"]),
        ("65/64", ["from 1 to 64", "--array=1-64"]),
        ("1/0", ["number of shards"]),
        ("3", ["i/N", "3/64"]),
        ("-1/4", ["i/N"]),
        ("1/4/2", ["i/N"]),
        ("one/two", ["i/N"]),
        ("1/9999999", ["i/N"]),
    ],
)
def test_what_is_no_shard_is_refused_with_what_would_be_one(text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        Shard.parse(text)
    refused(caught.value, f"--shard {text}", *words)


@pytest.mark.parametrize("out", [".", "..", "run/.."])
def test_a_folder_without_a_name_has_shards_beside_it(tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    folder = Shard(1, 2).folder(Path(out))
    assert Path(os.path.normpath(tmp_path / folder)) == Path(f"{os.path.normpath(tmp_path / out)}.shard-1-of-2")


@given(st.integers(0, 300), st.integers(1, 40))
def test_parts_in_a_row_are_equal_but_for_one_and_together_all(total: int, count: int) -> None:
    parts = [Shard(index, count).part(total) for index in range(1, count + 1)]
    assert [place for part in parts for place in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.lists(st.integers(1, 1000), max_size=100), st.integers(1, 12))
def test_dealing_gives_every_shard_as_many_and_as_much_but_for_the_heaviest(weights: list[int], count: int) -> None:
    order = sorted(weights, reverse=True)
    hands = [[place for place in range(len(order)) if Shard(index, count).deals(place)] for index in range(1, count + 1)]
    assert sorted(place for hand in hands for place in hand) == list(range(len(order)))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1
    sums = [sum(order[place] for place in hand) for hand in hands]
    assert max(sums) - min(sums) <= max(order, default=0)


def test_a_result_and_its_shards_are_output_and_nothing_else_is() -> None:
    assert all(is_output(path, "/a/extract") for path in ("/a/extract", "/a/extract.shard-1-of-2"))
    assert not any(is_output(path, "/a/extract") for path in ("/a/extracted", "/a/extract.mp4", "/b/extract", "/a/extract-2.shard-1-of-2"))


def make_shard(
    out: Path, shard: Shard, *, finish: bool = True, classes: str | None = None, inputs: dict[str, Path] | None = None, **config: Any
) -> Path:
    """A shard of stage `thing` that says no more than it must."""
    settings = {"size": 128, "listing_sha256": "a" * 64, "shard": str(shard)} | config
    with begin_stage("thing-shard", settings, inputs=inputs or {}, out=shard.folder(out)) as stage:
        (stage.work / "table.csv").write_text(f"shard {shard}\n")
        if finish:
            stage.finish(results={}, artifacts=["table.csv"], classes_sha256=classes)
    return shard.folder(out)


def make_shards(out: Path, count: int = 3, **how: Any) -> list[Path]:
    return [make_shard(out, Shard(index, count), **how) for index in range(1, count + 1)]


def fault(folders: list[Path], *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_shards("thing", folders)
    refused(caught.value, *words)


def test_shards_are_found_beside_the_result_and_read_in_any_order(tmp_path: Path) -> None:
    out = tmp_path / "thing"
    folders = make_shards(out, 11)
    (tmp_path / "thing.shard-1-of-2.old").mkdir()
    (tmp_path / "thing2.shard-1-of-2").mkdir()
    assert shard_folders(out) == folders  # 2 before 10
    read = read_shards("thing", folders[::-1])
    assert [manifest.folder for manifest in read] == folders
    assert shard_folders(tmp_path / "nowhere" / "thing") == []


def test_shards_that_are_missing_or_unfinished_are_named(tmp_path: Path) -> None:
    folders = make_shards(tmp_path / "thing", 9)
    fault([*folders[:2], folders[5], folders[8]], "Of the 9 shards of thing, 5 are missing (3-5, 7-8)", "--shard 3/9")
    fault([], "no shards of thing", "--shard i/N")
    unfinished = make_shard(tmp_path / "other", Shard(1, 9), finish=False)
    fault([*folders[1:], unfinished], "Unfinished", str(unfinished))
    (tmp_path / "empty").mkdir()
    fault([*folders[1:], tmp_path / "empty"], "1 is missing (1)")
    fault([*folders, tmp_path / "nowhere"], f"There is no {tmp_path / 'nowhere'}")


def test_shards_that_are_there_twice_are_named(tmp_path: Path) -> None:
    folders = make_shards(tmp_path / "thing")
    copy = Path(shutil.copytree(folders[1], tmp_path / "copy"))
    fault([*folders, copy], "Shard 2/3", str(folders[1]), str(copy), "more than once")
    others = make_shards(tmp_path / "thing", 2)
    fault([*folders, *others], "different numbers of shards", str(others[0]), str(folders[0]))


OTHERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "settings": ({"size": 64, "crf": 3}, ["size is 128 there, 64 here", "crf is null there, 3 here"]),
    "listing": ({"listing_sha256": "b" * 64}, ["other listing"]),
    "classes": ({"classes": "c" * 64}, ["other classes"]),
}


@pytest.mark.parametrize(("how", "words"), OTHERS.values(), ids=OTHERS.keys())
def test_shards_of_different_runs_are_named_with_the_difference(tmp_path: Path, how: dict[str, Any], words: list[str]) -> None:
    folders = [make_shard(tmp_path / "thing", Shard(index, 3)) for index in (1, 2)]
    other = make_shard(tmp_path / "other", Shard(3, 3), **how)
    fault([*folders, other], str(other), str(folders[0]), *words)


def test_shards_of_different_inputs_or_versions_are_named(tmp_path: Path) -> None:
    inputs = []
    for seed in (1, 2):
        with begin_stage("source", {"seed": seed}, inputs={}, out=tmp_path / f"source{seed}") as stage:
            inputs.append({"source": stage.finish(results={}).folder})
    folders = [make_shard(tmp_path / "thing", Shard(index, 2), inputs=inputs[index - 1]) for index in (1, 2)]
    fault(folders, str(folders[1]), "other source")
    folders = make_shards(tmp_path / "same", 2)
    edit(folders[1], lambda content: content.update(tool_version="9.9"), rehash=True)
    fault(folders, str(folders[1]), "rspnet is", "9.9 here")


def test_a_damaged_shard_or_another_stages_is_refused(tmp_path: Path) -> None:
    folders = make_shards(tmp_path / "thing")
    (folders[2] / "table.csv").write_text("shard 3/4\n")
    fault(folders, str(folders[2] / "table.csv"), "changed", "`rspnet thing --shard 3/3 --force`")
    with pytest.raises(InputError) as caught:
        read_shards("other", folders)
    refused(caught.value, "'thing-shard', not 'other-shard'", "`rspnet other --shard i/N`")


def siblings(out: Path, shard: Shard, inputs: dict[str, Manifest] | None = None, **config: Any) -> Callable[[], None]:
    settings = {"size": 128, "listing_sha256": "a" * 64, "shard": str(shard)} | config
    return lambda: refuse_other_siblings(shard, out, settings, inputs or {})


@pytest.mark.parametrize("finish", [True, False])
def test_a_shard_that_would_not_fit_the_others_is_refused_before_it_begins(tmp_path: Path, finish: bool) -> None:
    out = tmp_path / "thing"
    first = make_shard(out, Shard(1, 3), finish=finish)
    siblings(out, Shard(2, 3))()
    siblings(out, Shard(1, 3), size=64)()  # it would replace that one
    siblings(out, Shard(1, 2), size=64)()  # another number of shards is another run
    for config, words in (({"size": 64}, "size is 128 there, 64 here"), ({"listing_sha256": "b" * 64}, "other listing")):
        with pytest.raises(InputError) as caught:
            siblings(out, Shard(2, 3), **config)()
        refused(caught.value, str(first), words, "--force", "--out")
    (out.parent / "thing.shard-3-of-3").mkdir()  # nothing in it: nothing is known
    siblings(out, Shard(2, 3))()
