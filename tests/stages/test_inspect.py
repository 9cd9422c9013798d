"""inspect: the whole lineage is read, every changed file is found, two lineages are told apart."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rspnet_cli.config import ClassificationConfig
from rspnet_cli.errors import InputError
from rspnet_cli.lineage import flatten, nodes_of, read_lineage
from rspnet_cli.progress import Reporter
from rspnet_cli.stages.eval_classification import eval_classification
from rspnet_cli.stages.inspect import Difference, compare_lineages, verify_lineage
from tests.evaluation.tables import make_export, make_table
from tests.extracted import make_extract
from tests.pretrained import make_pretrain
from tests.sentences import refused

STAGES = ["extract", "pretrain", "export-features", "eval-classification"]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory with every stage from extract to eval-classification; copy it before changing it."""
    return make_chain(tmp_path_factory.mktemp("chain"))


def make_chain(folder: Path, *, codec: str = "h264", seed: int = 0) -> Path:
    make_extract(folder / "extract", num_frames=(9, 10), codec=codec)
    make_pretrain(folder / "pretrain", inputs={"extract": folder / "extract"})
    inputs = {"pretrain": folder / "pretrain", "extract": folder / "extract"}
    make_export(folder / "export-features", make_table(spread=2.0), inputs=inputs)
    config = ClassificationConfig(seed=seed, probe="knn")
    eval_classification(config, features=folder / "export-features", out=folder / "eval-classification")
    return folder


@pytest.fixture
def work(chain: Path, tmp_path: Path) -> Path:
    """A copy of the chain, somewhere else."""
    shutil.copytree(chain, tmp_path / "work")
    return tmp_path / "work"


def test_the_lineage_is_complete_and_each_stage_is_there_once(work: Path) -> None:
    node = read_lineage(work / "eval-classification")
    assert [current.stage for current in nodes_of(node)] == STAGES
    assert all(current.manifest is not None and current.fault is None for current in nodes_of(node))
    export = node.inputs[0]
    assert [below.stage for below in export.inputs] == ["pretrain", "extract"]
    assert export.inputs[0].inputs[0] is export.inputs[1]  # both read the one extraction


def test_an_untouched_lineage_verifies_and_counts_every_file(work: Path) -> None:
    verified = verify_lineage(read_lineage(work / "eval-classification"), Reporter.silent())
    assert verified.faults == []
    known = [node.manifest for node in nodes_of(read_lineage(work / "eval-classification")) if node.manifest]
    files = [manifest.folder / path for manifest in known for path, _ in manifest.hashes()]
    assert verified.files == len(files) == len(set(files))
    assert verified.bytes == sum(file.stat().st_size for file in files)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("extract/frames/v001.mp4", "its sha256 differs"),
        ("pretrain/encoder.safetensors", "its sha256 differs"),
        ("export-features/videos.csv", "its sha256 differs"),
        ("eval-classification/predictions.csv", "its sha256 differs"),
    ],
)
def test_a_changed_byte_is_found_in_every_stage(work: Path, name: str, words: str) -> None:
    content = bytearray((work / name).read_bytes())
    content[len(content) // 2] ^= 1
    (work / name).write_bytes(content)
    verified = verify_lineage(read_lineage(work / "eval-classification"), Reporter.silent())
    assert len(verified.faults) == 1
    assert str(work / name) in verified.faults[0]
    assert words in verified.faults[0]


def test_missing_longer_and_linked_files_are_found(work: Path) -> None:
    (work / "extract/frames/v000.mp4").unlink()
    with (work / "pretrain/encoder.safetensors").open("ab") as file:
        file.write(b"more")
    (work / "elsewhere.csv").write_bytes((work / "export-features/videos.csv").read_bytes())
    (work / "export-features/videos.csv").unlink()
    (work / "export-features/videos.csv").symlink_to(work / "elsewhere.csv")
    faults = verify_lineage(read_lineage(work / "eval-classification"), Reporter.silent()).faults
    assert len(faults) == 3
    assert any("v000.mp4 is missing" in fault for fault in faults)
    assert any("encoder.safetensors has" in fault for fault in faults)
    assert any("videos.csv is a link" in fault for fault in faults)


def test_a_jpeg_folder_is_hashed_too(tmp_path: Path) -> None:
    make_chain(tmp_path, codec="jpeg")
    picture = next((tmp_path / "extract/frames/v000").iterdir())
    content = bytearray(picture.read_bytes())
    content[-3] ^= 1
    picture.write_bytes(content)
    faults = verify_lineage(read_lineage(tmp_path / "eval-classification"), Reporter.silent()).faults
    assert len(faults) == 1
    assert "frames/v000 was changed" in faults[0]


def test_a_changed_index_is_a_fault_and_says_nothing_of_the_files_it_lists(work: Path) -> None:
    index = work / "extract/files.csv"
    index.write_text(index.read_text().replace("v000.mp4", "v009.mp4"))
    faults = verify_lineage(read_lineage(work / "eval-classification"), Reporter.silent()).faults
    assert len(faults) == 1
    assert f"{index} was changed" in faults[0]


def test_an_edited_or_missing_input_is_a_fault_and_the_rest_is_still_shown(work: Path) -> None:
    manifest = work / "pretrain/manifest.json"
    manifest.write_text(manifest.read_text().replace('"epochs": 3', '"epochs": 300'))
    node = read_lineage(work / "eval-classification")
    by_stage = {current.stage: current for current in nodes_of(node)}
    assert by_stage["pretrain"].fault is not None
    assert "was edited" in by_stage["pretrain"].fault
    assert by_stage["extract"].manifest is not None
    assert any("was edited" in fault for fault in verify_lineage(node, Reporter.silent()).faults)
    shutil.rmtree(work / "pretrain")
    assert any("There is no" in fault for fault in verify_lineage(read_lineage(work / "eval-classification"), Reporter.silent()).faults)


def test_an_input_made_anew_with_other_settings_is_a_fault(work: Path, tmp_path: Path) -> None:
    shutil.rmtree(work / "export-features")
    inputs = {"pretrain": work / "pretrain", "extract": work / "extract"}
    make_export(work / "export-features", make_table(spread=1.0), inputs=inputs)
    node = read_lineage(work / "eval-classification")
    assert node.inputs[0].fault is not None
    assert "digest differs" in node.inputs[0].fault


def test_an_edited_manifest_is_refused_at_once(work: Path) -> None:
    manifest = work / "eval-classification/manifest.json"
    manifest.write_text(manifest.read_text().replace('"queries": 18', '"queries": 81'))
    with pytest.raises(InputError) as error:
        read_lineage(work / "eval-classification")
    refused(error.value, "was edited")


def test_equal_lineages_have_no_differences(chain: Path, work: Path) -> None:
    assert compare_lineages(read_lineage(chain / "eval-classification"), read_lineage(work / "eval-classification")) == []


def test_differences_are_named_from_the_earliest_stage_on(chain: Path, tmp_path: Path) -> None:
    other = make_chain(tmp_path / "other", codec="jpeg", seed=5)
    found = compare_lineages(read_lineage(chain / "eval-classification"), read_lineage(other / "eval-classification"))
    keys = {(item.stage, item.key): (item.left, item.right) for item in found}
    assert keys["extract", "config.codec"] == ("h264", "jpeg")
    assert keys["eval-classification", "config.seed"] == (0, 5)
    assert keys["extract", "artifact frames/v000.mp4"][1] is None
    order = [STAGES.index(item.stage) for item in found]
    assert order == sorted(order)


def test_where_inputs_lie_is_the_difference_of_equal_results_with_other_digests(work: Path) -> None:
    make_pretrain(work / "deep/pretrain", inputs={"extract": work / "extract"})
    ours, theirs = read_lineage(work / "pretrain"), read_lineage(work / "deep/pretrain")
    assert ours.digest != theirs.digest
    (found,) = compare_lineages(ours, theirs)
    assert found == Difference("pretrain", "place of input extract", "../extract/manifest.json", "../../extract/manifest.json")
    assert found.is_place


def test_where_inputs_lie_is_told_beside_artifacts_which_may_name_digests_and_beside_nothing_else(work: Path) -> None:
    inputs = {"pretrain": work / "pretrain", "extract": work / "extract"}
    named = replace(make_table(spread=2.0), metadata={"backbone": "none", "clips": "2", "extract_digest": "another"})
    make_export(work / "deep/other-artifacts", named, inputs=inputs)
    make_export(work / "deep/other-settings", make_table(spread=2.0), inputs=inputs, config={"random_init": True})
    ours = read_lineage(work / "export-features")

    def keys(folder: str) -> list[str]:
        return [found.key for found in compare_lineages(ours, read_lineage(work / folder))]

    assert keys("deep/other-artifacts") == ["place of input pretrain", "place of input extract", "artifact features.safetensors"]
    assert keys("deep/other-settings") == ["config.random_init"]


def test_results_of_two_stages_are_not_compared(chain: Path) -> None:
    with pytest.raises(InputError) as error:
        compare_lineages(read_lineage(chain / "pretrain"), read_lineage(chain / "extract"))
    refused(error.value, "'pretrain'", "'extract'")


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "d": [2]}
