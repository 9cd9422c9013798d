"""A whole work directory of small, really encoded videos whose classes and files have the names that pages break on."""

import csv
from pathlib import Path

from rspnet_cli.config import ClassificationConfig, ExportConfig, ExtractConfig, FinetuneConfig, PretrainConfig, RetrievalConfig
from rspnet_cli.settings import validated
from rspnet_cli.stages.eval_classification import eval_classification
from rspnet_cli.stages.eval_retrieval import eval_retrieval
from rspnet_cli.stages.export_features import export_features
from rspnet_cli.stages.extract import extract
from rspnet_cli.stages.finetune import finetune
from rspnet_cli.stages.pretrain import pretrain
from tests.encode import make_video

CLASSES = ("<script>alert(1)</script>", "\"><img src=x onerror=alert(2)> & 'ü' 日本 \u202eevil", "]]></style>{plain}")
AS_SHOWN = (CLASSES[0], CLASSES[1].replace("\u202e", "\\u202e"), CLASSES[2])
"""What extract makes of them: the character that turns the writing direction is spelled out."""
NAMES = ("<b>", "a\"b'c", "&amp;", "ünï-日本", "--><script>", "${x}`")
TRAIN, TEST = 12, 9
SMALL = {
    "model": {"width": 0.1, "embedding_dim": 8},
    "clip": {"frames": 4, "size": 16},
    "moco": {"queue_size": 8, "mask_same_video": True},
    "optim": {"batch_size": 4, "epochs": 3},
    "run": {"log_interval": 1, "workers": 0},
}
FINETUNE = {
    "optim": {"batch_size": 4, "epochs": 2},
    "test": {"clips": 2, "batch_size": 8},
    "run": {"log_interval": 1, "workers": 0},
}


def make_videos(folder: Path) -> Path:
    """Encode TRAIN + TEST videos below `folder`; returns the list that names their classes, groups and parts."""
    rows = [("path", "label", "split", "group")]
    for video in range(TRAIN + TEST):
        path = f"{NAMES[video % len(NAMES)]} {video:02d}.mp4"
        make_video(folder / path, 9 + video % 5, size=(40, 32), start=100 * video)
        rows.append((path, CLASSES[video % 3], "train" if video < TRAIN else "test", f"g{video // 3}"))
    annotations = folder.parent / f"{folder.name}.csv"
    with annotations.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return annotations


def make_extraction(work: Path) -> None:
    """The extract stage of the work directory."""
    annotations = make_videos(work.parent / "videos")
    config = ExtractConfig(dataset="csv", short_side=32, workers=1)
    extract(config, videos=work.parent / "videos", annotations=annotations, out=work / "extract")


def make_work_dir(work: Path) -> Path:
    """Every stage, and the same of the untrained encoder beside them."""
    make_extraction(work)
    pretrain(validated(PretrainConfig, SMALL), frames=work / "extract", out=work / "pretrain")
    for folder, untrained in ((work, False), (work / "random-init", True)):
        config = ExportConfig(clips=2, random_init=untrained, workers=0)
        export_features(config, pretrain=work / "pretrain", out=folder / "export-features")
        eval_retrieval(RetrievalConfig(), features=folder / "export-features", out=folder / "eval-retrieval")
        eval_classification(ClassificationConfig(), features=folder / "export-features", out=folder / "eval-classification")
        tuned = validated(FinetuneConfig, FINETUNE | {"model": {"random_init": untrained}})
        finetune(tuned, pretrain=work / "pretrain", out=folder / "finetune")
    return work
