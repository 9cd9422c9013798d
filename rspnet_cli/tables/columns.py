"""The columns of every CSV table that a stage writes. README and tests take them from here."""

from __future__ import annotations

from rspnet_cli.tables.table import Column, Table

_ID = Column("id", "text", "the video's id: letters, digits, `.`, `_`, `-`; derived from the path of the source")
_SOURCE = Column(
    "source",
    "text",
    "path of the source below VIDEOS; backslashes, control characters and bytes that are not UTF-8 are escaped (`\\\\`, `\\n`, `\\xff`)",
)
_LABEL = Column("label", "int", "number of the class, from 0; empty for a video without a label")
_LABEL_NAME = Column("label_name", "text", "name of the class; empty for a video without a label")
_GROUP = Column("group", "text", "videos cut from one recording share it, and stay together in every evaluation; empty: the video is alone")
_SPLIT = Column("split_N", "text", "part in split N: train, test, val or unused; no such columns where the data has no splits")

VIDEOS = Table(
    "videos.csv",
    "extract",
    "an extracted video, sorted by id",
    (
        _ID,
        Column("frames_file", "text", "its frames below the stage's folder: `frames/<id>.mp4`, or the folder `frames/<id>` of JPEG files"),
        _SOURCE,
        _LABEL,
        _LABEL_NAME,
        _GROUP,
        _SPLIT,
        Column("frames", "int", "frames in the store, which is what a reader of it gets"),
        Column("fps", "float", "average frames per second"),
        Column("width", "int", "pixels, as stored"),
        Column("height", "int", "pixels, as stored"),
        Column("bytes", "int", "size of the stored frames"),
        Column("sha256", "text", "sha256 of the source file; of a folder of frames over its lines `sha256 name`"),
        Column("repaired_timestamps", "int", "frames whose time in the source ran backwards, repeated or was missing"),
        Column("corrupt_frames", "int", "frames that the decoder flagged as damaged, kept"),
        Column("partial", "bool", "whether the source is truncated and what decodes before the damage was kept (--keep-partial)"),
    ),
)
FAILURES = Table(
    "failures.csv",
    "extract",
    "a video that could not be extracted, sorted by id",
    (
        _ID,
        _SOURCE,
        _LABEL_NAME,
        Column("reason", "text", "why, in words that follow the source's name"),
        Column("decoded", "int", "frames that decoded, where it came to that"),
        Column("declared", "int", "frames that the file declares, where it does"),
    ),
)
SOURCES = Table(
    "sources.csv",
    "extract",
    "a source as it was found, sorted by path; a log, no artifact: a later run compares it with what it finds",
    (
        _SOURCE,
        Column("bytes", "int", "size; 0 for a folder of frames"),
        Column("mtime_ns", "int", "time of the last change, nanoseconds since 1970"),
    ),
)
FILES = Table(
    "files.csv",
    "extract",
    "a file of frames, sorted by path: the index that the manifest names",
    (
        Column("path", "text", "below the stage's folder; a folder of JPEG files ends with `/` and counts as one"),
        Column("bytes", "int", "its size"),
        Column("sha256", "text", "its sha256; of a folder over its sorted lines `sha256 name`"),
    ),
)
PRETRAIN_VIDEOS = Table(
    "videos.csv",
    "pretrain",
    "a video of the extraction",
    (
        _ID,
        Column("used", "bool", "whether the encoder was trained on it"),
        Column("sha256", "text", "sha256 of the source file"),
    ),
)
METRICS = Table(
    "metrics.csv",
    "pretrain",
    "a log interval; figures are means over its steps",
    (
        Column("epoch", "int", "epoch of the last step, from 1"),
        Column("step", "int", "steps done"),
        Column("lr", "float", "learning rate"),
        Column("loss", "float", "avid_weight * L_A + rsp_weight * L_M"),
        Column("loss_avid", "float", "L_A, video instance discrimination"),
        Column("loss_rsp", "float", "L_M, relative speed perception"),
        Column("avid_top1", "float", "share of queries whose key is nearer than every key of the queue"),
        Column("avid_top5", "float", "share of queries whose key is among the 5 nearest"),
        Column("avid_other_top1", "float", "avid_top1 for the key at the other speed"),
        Column("avid_other_top5", "float", "avid_top5 for the key at the other speed"),
        Column("rsp_accuracy", "float", "share of queries nearer to the key at their own speed than to the other"),
        Column("grad_norm", "float", "norm of the gradient of all parameters"),
        Column("queue_filled", "float", "share of the queue that holds real keys; below 1 the avid columns mean nothing"),
    ),
)
TIMINGS = Table(
    "timings.csv",
    "pretrain",
    "a log interval of a training; a log, no artifact",
    (
        Column("step", "int", "steps done"),
        Column("seconds", "float", "time of the interval"),
        Column("videos_per_s", "float", "videos trained on per second, all processes together"),
        Column("data_wait_share", "float", "share of the time spent waiting for decoded clips"),
    ),
)
FEATURE_VIDEOS = Table(
    "videos.csv",
    "export-features",
    "a video with features: row i describes row i of the tensors of features.safetensors",
    (
        _ID,
        _SOURCE,
        _LABEL,
        _LABEL_NAME,
        _GROUP,
        _SPLIT,
        Column("frames", "int", "frames in the store"),
        Column("fps", "float", "average frames per second"),
        Column(
            "seen",
            "text",
            "whether the encoder saw the video in pretraining, True or False; empty where an imported encoder's videos are not known",
        ),
    ),
)
NEIGHBOURS = Table(
    "neighbours.csv",
    "eval-retrieval",
    "a query and one of its nearest gallery videos, nearest first",
    (
        Column("query_id", "text", "the query's id"),
        Column("rank", "int", "1 for the nearest"),
        Column("neighbour_id", "text", "the gallery video's id"),
        Column("similarity", "float", "cosine of the two features"),
        Column("query_label_name", "text", "class of the query; empty without a label"),
        Column("neighbour_label_name", "text", "class of the neighbour; empty without a label"),
        Column("correct", "text", "True if the classes are the same, False if not; empty for a query without a label"),
    ),
)
PREDICTIONS = Table(
    "predictions.csv",
    "eval-classification",
    "a test video, in the order of the features; the columns of a probe that was not asked for are empty",
    (
        _ID,
        _LABEL,
        _LABEL_NAME,
        Column("fold", "int", "the fold it was tested in, from 1; empty with a split"),
        Column("linear_label", "int", "class that the linear probe gives it"),
        Column("linear_label_name", "text", "name of that class"),
        Column("linear_rank", "int", "place of the true class in the linear probe's order, 1 for right; empty if train has no such class"),
        Column("knn_label", "int", "class that its nearest train videos give it"),
        Column("knn_label_name", "text", "name of that class"),
        Column("knn_rank", "int", "place of the true class in their order, 1 for right; empty if none of the 200 nearest is of it"),
    ),
)
PER_CLASS = Table(
    "per_class.csv",
    "eval-classification",
    "a class that test videos have; the column of a probe that was not asked for is empty",
    (
        _LABEL,
        _LABEL_NAME,
        Column("queries", "int", "test videos of the class"),
        Column("linear_top1", "float", "share of them that the linear probe gets right"),
        Column("knn_top1", "float", "share of them that nearest neighbours get right"),
    ),
)
PROBE_SETTINGS = Table(
    "probe_settings.csv",
    "eval-classification",
    "a setting that a probe tried on its validation part, which is a fifth of train in whole groups",
    (
        Column("fold", "int", "the fold, from 1; empty with a split"),
        Column("probe", "text", "linear or knn"),
        Column("setting", "float", "linear: C, the inverse of the regularisation; knn: k, the number of neighbours"),
        Column("validation_videos", "int", "videos it was tried on; 0: there were none, and the default is used"),
        Column("validation_top1", "float", "share of them it gets right; empty without any"),
        Column("chosen", "bool", "whether the probe was then fitted to all of train with it"),
    ),
)
FINETUNE_VIDEOS = Table(
    "videos.csv",
    "finetune",
    "a video of the extraction",
    (
        _ID,
        Column("used", "bool", "whether the network was trained on it, with its label"),
        Column("part", "text", "train, validation (chose the best epoch), test, or empty for none of them"),
        Column("seen", "text", "whether the encoder saw it before, True or False; empty where an imported encoder's videos are not known"),
        Column("sha256", "text", "sha256 of the source file"),
    ),
)
CLASSES = Table(
    "classes.csv",
    "finetune",
    "a class; row i belongs to row i of the last layer's weight",
    (_LABEL, _LABEL_NAME),
)
FINETUNE_METRICS = Table(
    "metrics.csv",
    "finetune",
    "a log interval; figures are means over its steps",
    (
        Column("epoch", "int", "epoch of the last step, from 1"),
        Column("step", "int", "steps done"),
        Column("lr", "float", "learning rate"),
        Column("loss", "float", "cross entropy of the training clips"),
        Column("top1", "float", "share of training clips whose class has the highest logit"),
        Column("top5", "float", "share of training clips whose class is among the 5 highest"),
        Column("grad_norm", "float", "norm of the gradient of all trained parameters"),
    ),
)
EPOCHS = Table(
    "epochs.csv",
    "finetune",
    "an epoch; the selection columns are of the videos that choose the best one (one centre clip each), empty where nothing chooses",
    (
        Column("epoch", "int", "number of the epoch, from 1"),
        Column("lr", "float", "learning rate"),
        Column("loss", "float", "mean of the training loss"),
        Column("top1", "float", "mean over the training clips"),
        Column("top5", "float", "mean over the training clips"),
        Column("grad_norm", "float", "mean norm of the gradient"),
        Column("selection_loss", "float", "cross entropy"),
        Column(
            "selection_top1", "float", "share of them that are right; of epochs with equal shares the one with the lower loss is better"
        ),
        Column("best", "bool", "whether every epoch before was worse"),
    ),
)
FINETUNE_PREDICTIONS = Table(
    "predictions.csv",
    "finetune",
    "a test video, in the order of the extraction",
    (
        _ID,
        _LABEL,
        _LABEL_NAME,
        Column("fold", "int", "the fold it was tested in, from 1; empty with a split"),
        Column("finetune_label", "int", "class with the highest logit, averaged over the clips"),
        Column("finetune_label_name", "text", "name of that class"),
        Column("finetune_rank", "int", "place of the true class in the order of the logits, 1 for right; empty if train has no such class"),
    ),
)
FINETUNE_PER_CLASS = Table(
    "per_class.csv",
    "finetune",
    "a class that test videos have",
    (
        _LABEL,
        _LABEL_NAME,
        Column("queries", "int", "test videos of the class"),
        Column("finetune_top1", "float", "share of them that are right"),
    ),
)
TABLES = [
    VIDEOS,
    FAILURES,
    FILES,
    SOURCES,
    PRETRAIN_VIDEOS,
    METRICS,
    TIMINGS,
    FEATURE_VIDEOS,
    NEIGHBOURS,
    PREDICTIONS,
    PER_CLASS,
    PROBE_SETTINGS,
    FINETUNE_VIDEOS,
    CLASSES,
    FINETUNE_METRICS,
    EPOCHS,
    FINETUNE_PREDICTIONS,
    FINETUNE_PER_CLASS,
]
