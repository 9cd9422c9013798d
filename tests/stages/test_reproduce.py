"""reproduce on lineages of manifests: what is as published is said to be, every change is named, and nothing is claimed where one is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rspnet_cli.config import ExportConfig, ExtractConfig
from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest
from rspnet_cli.published import Published, Sides, published
from rspnet_cli.settings import finetune_settings, pretrain_settings
from rspnet_cli.stage import begin_stage
from rspnet_cli.stages.reproduce import Reproduction, reproduce, steps
from tests.sentences import refused

PARTS = ("train",) * 5 + ("test",) * 3
SIDES = Sides(train=5, test=3)


@pytest.fixture(autouse=True)
def _small_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published data sets with eight videos each."""
    known = published()
    sets = {name: data.model_copy(update={"splits": dict.fromkeys(data.splits, SIDES)}) for name, data in known.datasets.items()}
    small: Published = known.model_copy(update={"datasets": sets})
    monkeypatch.setattr(steps, "published", lambda: small)


def finish(
    out: Path, stage: str, config: dict[str, Any], results: dict[str, Any], inputs: Mapping[str, Path], files: dict[str, str] | None = None
) -> Manifest:
    with begin_stage(stage, config, inputs=inputs, out=out, force=True) as begun:
        for name, text in (files or {}).items():
            (begun.work / name).write_text(text)
        return begun.finish(results=results, artifacts=sorted(files or {}))


def changed(config: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with "section.key" (or "key") replaced."""
    copy: dict[str, Any] = json.loads(json.dumps(config))
    for name, value in changes.items():
        section, _, key = name.rpartition(".")
        (copy[section] if section else copy)[key] = value
    return copy


def make_videos(out: Path, of: str, *, parts: tuple[str, ...] = PARTS, failed: int = 0, **changes: Any) -> Path:
    data = published().datasets[of]
    config = changed(ExtractConfig(dataset=of, short_side=256).identity(), changes)  # type: ignore[arg-type]
    columns = [f"split_{split}" for split in data.splits]
    lines = [",".join(["id", *columns]), *(",".join([f"v{row}", *[part] * len(columns)]) for row, part in enumerate(parts))]
    results = {"videos": len(parts), "failed": failed, "classes": data.classes, "splits": len(columns)}
    return finish(out, "extract", config, results, {}, {"videos.csv": "\n".join(lines) + "\n"}).folder


def make_pretrain(out: Path, videos: Path, recipe: str = "r3d18", *, processes: int = 4, used: int = 5, **changes: Any) -> Path:
    sets = ["clip.load=all", "optim.best_from=start", "optim.last_videos=repeat"]
    config = pretrain_settings(recipe=recipe, sets=sets, flags={"run.precision": "fp32"}).identity()
    config["run"] |= {"processes": processes, "device": "cuda"}
    results = {"videos": used, "epochs": config["optim"]["epochs"], "loss": 1.0, "avid_top1": 0.5, "rsp_accuracy": 0.9}
    return finish(out, "pretrain", changed(config, changes), results, {"extract": videos}).folder


def make_finetune(
    out: Path, videos: Path, pretrain: Path, recipe: str = "ucf101-r3d18", *, top1: float = 0.75, processes: int = 1, **changes: Any
) -> Path:
    flags = {"data.split": "all", "data.select_on": "test", "model.checkpoint": "best", "run.precision": "fp32", "model.width": 1.0}
    config = finetune_settings(recipe=recipe, flags=flags | {"clip.rate_tolerance": 0, "optim.last_videos": "repeat"}).identity()
    config["run"] |= {"processes": processes}
    results = {"top1": top1, "top5": 0.9, "mean_class": 0.7, "interval": {"top1": [top1 - 0.02, top1 + 0.02]}}
    return finish(out, "finetune", changed(config, changes), results, {"extract": videos, "pretrain": pretrain}).folder


def make_work(folder: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """A work directory with everything of ucf101-r3d18 as published, but for `changes`: what is made -> arguments."""
    how = changes or {}
    kinetics = make_videos(folder / "k400", "kinetics400", **how.get("kinetics", {}))
    ucf = make_videos(folder / "ucf", "ucf101", **how.get("ucf", {}))
    pretrain = make_pretrain(folder / "mine", kinetics, **how.get("pretrain", {}))
    make_finetune(folder / "tuned", ucf, pretrain, **how.get("finetune", {}))
    return folder


def named(found: Reproduction) -> list[tuple[str, str, Any, Any]]:
    return [(item.stage, item.key, item.own, item.published) for item in found.comparison.differences]


@pytest.mark.parametrize(("top1", "verdict"), [(0.743, "agrees"), (0.76, "agrees"), (0.70, "below"), (0.80, "above")])
def test_a_lineage_as_published_differs_in_nothing_and_may_be_compared(tmp_path: Path, top1: float, verdict: str) -> None:
    found = reproduce("ucf101-r3d18", work_dir=make_work(tmp_path, {"finetune": {"top1": top1}}))
    assert named(found) == []
    assert found.missing == []
    assert found.verdict == verdict
    assert (found.published_figures, found.own_figures) == ({"top1": 0.743}, {"top1": top1})
    # Even so, what nobody published is said.
    assert {(item.stage, item.key) for item in found.comparison.open} == {
        *{("extract", "store"), ("finetune", "data.split"), ("finetune", "optim.batch_size")}
    }


CHANGES: list[tuple[str, dict[str, Any], str, str, Any, Any]] = [
    ("kinetics", {"dataset": "plain"}, "extract", "dataset", "plain", "kinetics400"),
    ("kinetics", {"short_side": 128}, "extract", "short_side", 128, 256),
    ("kinetics", {"limit": 1000}, "extract", "limit", 1000, None),
    ("kinetics", {"parts": PARTS[1:]}, "extract", "train videos of split 1", 4, 5),
    ("kinetics", {"failed": 2}, "extract", "videos that failed", 2, 0),
    ("ucf", {"keep_partial": True}, "extract", "keep_partial", True, False),
    ("pretrain", {"processes": 8}, "pretrain", steps.BATCH_NORM, 32, 64),
    ("pretrain", {"processes": 1}, "pretrain", steps.BATCH_NORM, 256, 64),
    ("pretrain", {"optim.epochs": 100}, "pretrain", "optim.epochs", 100, 200),
    ("pretrain", {"optim.lr": 0.1}, "pretrain", "optim.lr", 0.1, 0.4),
    ("pretrain", {"model.backbone": "c3d"}, "pretrain", "model.backbone", "c3d", "r3d18"),
    ("pretrain", {"model.width": 0.25}, "pretrain", "model.width", 0.25, 1.0),
    ("pretrain", {"model.head": "mlp"}, "pretrain", "model.head", "mlp", "linear"),
    ("pretrain", {"clip.speeds": [4]}, "pretrain", "clip.speeds", [4], [2]),
    ("pretrain", {"clip.load": "played"}, "pretrain", "clip.load", "played", "all"),
    ("pretrain", {"clip.frame_rate": 25.0}, "pretrain", "clip.frame_rate", 25.0, None),
    ("pretrain", {"augment.jitter": [0.4, 0.4, 0.4, 0.1]}, "pretrain", "augment.jitter", [0.4, 0.4, 0.4, 0.1], [0.4] * 4),
    ("pretrain", {"moco.queue_size": 1024}, "pretrain", "moco.queue_size", 1024, 16384),
    ("pretrain", {"moco.momentum_end": 0.9999}, "pretrain", "moco.momentum_end", 0.9999, None),
    ("pretrain", {"moco.mask_same_video": True}, "pretrain", "moco.mask_same_video", True, False),
    ("pretrain", {"objective.rsp_weight": 2.0}, "pretrain", "objective.rsp_weight", 2.0, 1.0),
    ("pretrain", {"optim.best_from": "full_queue"}, "pretrain", "optim.best_from", "full_queue", "start"),
    ("pretrain", {"run.precision": "bf16"}, "pretrain", "run.precision", "bf16", "fp32"),
    ("pretrain", {"data.split": "all"}, "pretrain", "data.split", "all", "1"),
    ("pretrain", {"used": 4}, "pretrain", "videos", 4, 5),
    ("finetune", {"data.select_on": "validation"}, "finetune", "data.select_on", "validation", "test"),
    ("finetune", {"data.split": "2"}, "finetune", "data.split", "2", "all or 1"),
    ("finetune", {"model.checkpoint": "last"}, "finetune", "model.checkpoint", "last", "best"),
    ("finetune", {"model.random_init": True}, "finetune", "model.random_init", True, False),
    ("finetune", {"model.linear": True}, "finetune", "model.linear", True, False),
    ("finetune", {"optim.lr": 0.01}, "finetune", "optim.lr", 0.01, 0.1),
    ("finetune", {"clip.frame_rate": 0.0}, "finetune", "clip.frame_rate", 0.0, 25.0),
    ("finetune", {"clip.rate_tolerance": 2e-4}, "finetune", "clip.rate_tolerance", 2e-4, 0),
    ("pretrain", {"optim.last_videos": "drop"}, "pretrain", "optim.last_videos", "drop", "repeat"),
    ("finetune", {"test.clips": 3}, "finetune", "test.clips", 3, 10),
    ("finetune", {"augment.flip": 0.0}, "finetune", "augment.flip", 0.0, 0.5),
    ("finetune", {"processes": 2}, "finetune", steps.BATCH_NORM, 16, 32),
]


@pytest.mark.parametrize(("where", "change", "stage", "key", "own", "expected"), CHANGES)
def test_every_change_is_named_wherever_in_the_lineage_and_nothing_is_claimed(
    tmp_path: Path, where: str, change: dict[str, Any], stage: str, key: str, own: Any, expected: Any
) -> None:
    found = reproduce("ucf101-r3d18", work_dir=make_work(tmp_path, {where: change}))
    assert (stage, key, own, expected) in named(found)
    assert {name for _, name, *_ in named(found)} <= {key, "test videos of split 1"}
    assert found.verdict == "settings differ"
    assert found.to_json()["verdict"] == "settings differ"


def test_what_changes_no_result_is_no_difference(tmp_path: Path) -> None:
    free = {"run.seed": 7, "run.device": "cpu", "run.compile": True, "run.log_interval": 3, "run.keep_every": 0}
    work = make_work(tmp_path, {"pretrain": free, "finetune": free | {"test.batch_size": 1}, "kinetics": {"short_side": 480}})
    assert named(reproduce("ucf101-r3d18", work_dir=work)) == []


def test_a_manifest_without_a_later_setting_had_its_default_which_on_one_process_repeats_nothing_either(tmp_path: Path) -> None:
    config = pretrain_settings(recipe="r3d18", sets=["clip.load=all", "optim.best_from=start"], flags={"run.precision": "fp32"}).identity()
    assert "last_videos" not in config["optim"]
    videos = make_videos(tmp_path / "k400", "kinetics400")
    for processes, parts, expected in ((4, 1, [("pretrain", "optim.last_videos", "drop", "repeat")]), (1, 4, [])):
        own = changed(config, {"moco.bn_splits": parts}) | {"run": config["run"] | {"processes": processes}}
        made = finish(tmp_path / str(processes), "pretrain", own, {"videos": 5}, {"extract": videos})
        assert named(reproduce("r3d18", work_dir=tmp_path, manifest=made.folder)) == expected


def test_parts_of_one_gpu_are_as_good_as_gpus_and_the_scaled_rate_is_explained(tmp_path: Path) -> None:
    same = make_work(tmp_path / "parts", {"pretrain": {"processes": 1, "moco.bn_splits": 4}})
    assert named(reproduce("ucf101-r3d18", work_dir=same)) == []
    scaled = make_work(tmp_path / "scaled", {"pretrain": {"processes": 1, "optim.batch_size": 64, "optim.lr": 0.1}})
    found = reproduce("ucf101-r3d18", work_dir=scaled)
    notes = {item.key: item.note for item in found.comparison.differences}
    assert notes.keys() == {"optim.batch_size", "optim.lr"}
    assert notes["optim.lr"] == "the published rate, scaled to the batch"


def test_an_empty_work_directory_gets_every_command_in_order(tmp_path: Path) -> None:
    found = reproduce("ucf101-c3d", work_dir=tmp_path / "none")
    assert (found.own, found.verdict, found.own_figures) == (None, "missing", None)
    place = tmp_path / "none"
    assert [command for _, command in found.missing] == [
        f"rspnet extract KINETICS --dataset kinetics400 --short-side 256 --out {place}/extract-kinetics400",
        f"torchrun --nproc-per-node 4 -m rspnet_cli pretrain {place}/extract-kinetics400 --recipe c3d --precision fp32 "
        f"--set clip.load=all --set optim.best_from=start --set optim.last_videos=repeat --out {place}/pretrain-c3d",
        f"rspnet extract UCF-101 --dataset ucf101 --annotations ucfTrainTestlist --short-side 256 --out {place}/extract-ucf101",
        f"torchrun --nproc-per-node 4 -m rspnet_cli finetune {place}/pretrain-c3d --frames {place}/extract-ucf101 --recipe ucf101-c3d "
        f"--split all --select-on test --checkpoint best --precision fp32 --set optim.last_videos=repeat --out {place}/ucf101-c3d",
    ]
    assert not place.exists()


def test_what_is_there_is_used_and_what_is_not_as_published_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A video fewer than in the lists is named, but no reason to extract again; a bfloat16 pretraining is one to train again.
    make_work(tmp_path / "work", {"kinetics": {"parts": PARTS[1:]}, "pretrain": {"run.precision": "bf16", "used": 4}})
    monkeypatch.chdir(tmp_path)
    found = reproduce("ucf101-r3d18", work_dir=Path("work"))
    assert [command.split(" --recipe")[0] for _, command in found.missing] == [
        "torchrun --nproc-per-node 4 -m rspnet_cli pretrain work/k400",
        "rspnet finetune work/pretrain-r3d18 --frames work/ucf",
    ]
    assert {item.key for item in found.comparison.differences if item.is_data} == {"train videos of split 1", "videos"}
    assert any(item.note and "YouTube" in item.note for item in found.comparison.differences if item.is_data)


def test_the_nearest_of_several_is_shown_and_the_others_listed(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    make_finetune(work / "also", work / "ucf", work / "mine", top1=0.5, **{"optim.epochs": 3, "test.clips": 1})
    (work / "broken").mkdir()
    (work / "broken" / "manifest.json").write_text("{")
    found = reproduce("ucf101-r3d18", work_dir=work)
    assert found.own_figures == {"top1": 0.75}
    assert found.others == [(work / "also" / "manifest.json", 2)]
    chosen = reproduce("ucf101-r3d18", work_dir=work, manifest=work / "also")
    assert chosen.own_figures == {"top1": 0.5}
    assert {key for _, key, *_ in named(chosen)} == {"optim.epochs", "test.clips"}


def test_a_manifest_may_be_of_a_step_on_the_way_but_not_of_another_job(tmp_path: Path) -> None:
    work = make_work(tmp_path, {"pretrain": {"optim.epochs": 50}})
    found = reproduce("ucf101-r3d18", work_dir=tmp_path / "none", manifest=work / "mine")
    assert [key for _, key, *_ in named(found)] == ["optim.epochs"]
    assert (found.verdict, found.own_figures, found.is_last) == ("missing", None, False)
    # Of the two extractions of this job the one that it is.
    assert named(reproduce("ucf101-r3d18", work_dir=tmp_path / "none", manifest=work / "ucf")) == []
    with pytest.raises(InputError) as error:
        reproduce("ucf101-retrieval-r3d18", work_dir=work, manifest=work / "tuned")
    refused(error.value, "'finetune'", "export-features", "eval-retrieval")


def test_an_input_that_is_gone_is_named(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    shutil.rmtree(work / "k400")
    found = reproduce("ucf101-r3d18", work_dir=work)
    assert [(stage, key) for stage, key, *_ in named(found)] == [("extract", "manifest")]
    assert found.verdict == "settings differ"


def test_an_imported_encoder_leaves_open_what_its_file_does_not_tell(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    config = pretrain_settings(recipe="r3d18").identity()
    unknown = {section: dict.fromkeys(values) for section, values in config.items()}
    unknown["model"], unknown["clip"] = config["model"], config["clip"] | {"load": None}
    unknown["optim"] |= {"lr": 0.4, "weight_decay": 1e-4}
    unknown["run"] |= {"processes": None}
    imported = finish(work / "imported", "pretrain", unknown | {"import": {"sha256": "0"}}, {"videos": None, "epochs": 200}, {})
    make_finetune(work / "tuned", work / "ucf", imported.folder, **{"model.checkpoint": "last"})
    found = reproduce("ucf101-r3d18", work_dir=work)
    assert named(found) == []  # the released file is that of the best epoch, and holds no other
    left_open = {item.key for item in found.comparison.open if item.stage == "pretrain"}
    assert {"optim.batch_size", "moco.temperature", "videos", steps.BATCH_NORM} <= left_open
    assert not {"optim.lr", "model.backbone"} & left_open
    # An import stands in the place of the pretraining, and of what that would need; its only checkpoint is the last.
    shutil.rmtree(work / "mine")
    for name in ("tuned", "k400"):
        shutil.rmtree(work / name)
    command = f"rspnet finetune {work}/imported --frames {work}/ucf --recipe ucf101-r3d18 --split all --select-on test --checkpoint last "
    (missing,) = reproduce("ucf101-r3d18", work_dir=work).missing
    assert missing[1] == f"{command}--precision fp32 --set clip.rate_tolerance=0 --set optim.last_videos=repeat --out {work}/ucf101-r3d18"


def make_retrieval(folder: Path, *, export: Mapping[str, Any] | None = None, recall: float = 0.41, split: int = 1) -> Path:
    kinetics, ucf = make_videos(folder / "k400", "kinetics400"), make_videos(folder / "ucf", "ucf101")
    pretrain = make_pretrain(folder / "mine", kinetics)
    known = {"gallery_augment": "reference", "split": "1", "gallery_batch": 8, "seed": 3, "checkpoint": "best"}
    config = changed(ExportConfig.model_validate(known).identity(), export or {})
    features = finish(folder / "features", "export-features", config, {}, {"extract": ucf, "pretrain": pretrain}).folder
    recalls = {"1": recall, "5": 0.6, "10": 0.69, "20": 0.78, "50": 0.88}
    results = {"recall": recalls, "interval": {k: [value - 0.02, value + 0.02] for k, value in recalls.items()}}
    config = {"protocol": "split", "split": split, "topk": [1, 5, 10, 20, 50], "device": "cpu"}
    finish(folder / "found", "eval-retrieval", config, results, {"export-features": features})
    return folder


def test_retrieval_is_compared_at_every_k_and_its_pooling_is_an_open_point(tmp_path: Path) -> None:
    found = reproduce("ucf101-retrieval-r3d18", work_dir=make_retrieval(tmp_path / "avg"))
    assert (named(found), found.missing, found.verdict) == ([], [], "agrees")
    assert found.own_figures is not None
    assert list(found.own_figures) == ["1", "5", "10", "20", "50"]
    assert [item.own for item in found.comparison.open if item.key == "pool"] == ["avg"]
    assert reproduce("ucf101-retrieval-r3d18", work_dir=make_retrieval(tmp_path / "max", export={"pool": "max"})).verdict == "agrees"
    assert reproduce("ucf101-retrieval-r3d18", work_dir=make_retrieval(tmp_path / "low", recall=0.3)).verdict == "below"


@pytest.mark.parametrize(
    ("change", "key", "own"),
    [
        ({"gallery_augment": "none", "gallery_batch": None, "split": None, "seed": None}, "gallery_augment", "none"),
        ({"gallery_batch": 32}, "gallery_batch", 32),
        ({"clips": 5}, "clips", 5),
        ({"checkpoint": "last"}, "checkpoint", "last"),
        ({"random_init": True}, "random_init", True),
        ({"reestimate_bn": True}, "reestimate_bn", True),
        ({"precision": "bf16"}, "precision", "bf16"),
    ],
)
def test_the_features_of_a_retrieval_are_compared(tmp_path: Path, change: dict[str, Any], key: str, own: Any) -> None:
    found = reproduce("ucf101-retrieval-r3d18", work_dir=make_retrieval(tmp_path, export=change))
    assert [(stage, name, value) for stage, name, value, _ in named(found)] == [("export-features", key, own)]
    assert found.verdict == "settings differ"


def test_a_pretraining_recipe_has_no_figure_of_its_own(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    found = reproduce("r3d18", work_dir=work)
    assert (named(found), found.published_figures, found.verdict) == ([], None, "no published figure")
    assert found.own_figures == {"loss": 1.0, "avid_top1": 0.5, "rsp_accuracy": 0.9}
    document = found.to_json()
    assert (document["pretraining"]["hours"], document["pretraining"]["gpus"]) == (140, 4)
    ours = reproduce("small-cpu", work_dir=work)  # against a recipe of ours
    assert "model.width" in {key for _, key, *_ in named(ours)}
    assert [command for _, command in ours.missing] == [f"rspnet pretrain --recipe small-cpu --out {work}/pretrain-small-cpu"]
    tuned = reproduce("small-cpu-finetune", work_dir=work)
    assert {"optim.name", "optim.lr"} <= {key for _, key, *_ in named(tuned)}


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        reproduce("ucf101-retrieval-r3d", work_dir=tmp_path)
    refused(error.value, "'ucf101-retrieval-r3d'", "did you mean 'ucf101-retrieval-r3d18'?", "rspnet recipes")
