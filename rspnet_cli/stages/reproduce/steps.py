"""What would have to be run, and with which settings, to repeat a published result: the steps from the videos to the figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rspnet_cli.config import FinetuneConfig, PretrainConfig
from rspnet_cli.errors import InputError
from rspnet_cli.lineage import flatten
from rspnet_cli.published import Published, Result, published
from rspnet_cli.recipes import recipe_names
from rspnet_cli.settings import finetune_settings, nearest, pretrain_settings

BATCH_NORM = "videos per batch-norm statistic"
"""A value that follows from several settings: what a batch-norm layer averages over, a GPU's share of the batch."""
RETRIEVAL_CLIPS = 10
# The released code decodes the sources, or copies of them that its optional transcoding made this high.
TRANSCODED_HEIGHT = 256
# Settings that change nothing about a result, or that nobody published.
_PASSED_OVER = ("run.", "test.batch_size", "optim.lr_scale", "optim.accumulate", "moco.bn_splits")


@dataclass(frozen=True)
class Step:
    """One command. `words` holds the steps whose results it reads in the places of their paths."""

    stage: str
    title: str
    folder: str
    """Its place below the work directory, where it is yet to be made."""
    words: tuple[str | Step, ...]
    expected: dict[str, Any]
    """ "section.key" -> the published value; a tuple holds several that are as published."""
    open: dict[str, str] = field(default_factory=dict)
    """Setting -> what is not published, or contradictory, about it."""
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    """(split, part) -> videos that the data set's lists name; of an extraction."""
    note: str | None = None
    """Said beside counts that differ."""

    @property
    def inputs(self) -> list[Step]:
        """The steps before it."""
        return [word for word in self.words if isinstance(word, Step)]


@dataclass(frozen=True)
class Target:
    """What is to be repeated."""

    name: str
    title: str
    last: Step
    result: Result | None
    """None: no figure is published."""
    pretraining: str | None
    """The published pretraining behind it."""


def find_target(name: str) -> Target:
    """The steps of a published result, of a recipe of finetune, or of one of pretrain. Raises InputError naming the nearest."""
    known = published()
    if name in known.results:
        return _of_result(name, known.results[name], known)
    if name in recipe_names("finetune"):
        step = Step("finetune", name, name, ("rspnet", "finetune", "--recipe", name), _given(finetune_settings(recipe=name)))
        return Target(name, f"fine-tuning by the recipe {name}", step, None, None)
    if name in recipe_names("pretrain"):
        title = f"pretraining by the recipe {name}"
        return Target(name, title, _pretrain(name, known), None, name if name in known.pretrainings else None)
    names = [*known.results, *recipe_names("pretrain"), *recipe_names("finetune")]
    raise InputError(f"There is no recipe or published result '{name}'{nearest(name, names)} `rspnet recipes` lists them.")


def _of_result(name: str, result: Result, known: Published) -> Target:
    before = known.datasets[known.pretrainings[result.pretraining].dataset].title
    pretrain, videos = _pretrain(result.pretraining, known), _extract(result.dataset, known)
    if result.task == "finetune":
        last, what = _finetune(name, result, pretrain, videos), "fine-tuning on"
    else:
        last, what = _retrieval(name, result, pretrain, videos), "retrieval on"
    title = f"{what} {known.datasets[result.dataset].title} after {result.pretraining} on {before}"
    return Target(name, title, last, result, result.pretraining)


def _given(config: Any) -> dict[str, Any]:
    """The settings of a recipe that say something, flat."""
    values = flatten(config.model_dump(mode="json"))
    return {key: value for key, value in values.items() if value is not None and not key.startswith(_PASSED_OVER)}


def _released(config: PretrainConfig | FinetuneConfig) -> dict[str, Any]:
    """What the released code does in every training, where it is not our default."""
    return ({"clip.rate_tolerance": 0} if config.clip.frame_rate else {}) | {"optim.last_videos": "repeat"}


def _sets(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def _extract(dataset: str, known: Published) -> Step:
    data = known.datasets[dataset]
    lists: tuple[str, ...] = ("--annotations", data.annotations) if data.annotations else ()
    words = ("rspnet", "extract", data.videos, "--dataset", dataset, *lists, "--short-side", str(TRANSCODED_HEIGHT))
    return Step(
        "extract",
        data.title,
        f"extract-{dataset}",
        words,
        {"dataset": dataset, "short_side": TRANSCODED_HEIGHT, "keep_partial": False, "limit": None, "classes": data.classes},
        open={"store": "the released code decodes the sources, or copies of 256 rows that an optional transcoding made"},
        counts={(split, part): getattr(sides, part) for split, sides in data.splits.items() for part in ("train", "test")},
        note=data.note,
    )


def _pretrain(recipe: str, known: Published) -> Step:
    config = pretrain_settings(recipe=recipe)
    expected = _given(config) | {"moco.momentum_end": config.moco.momentum_end, "clip.frame_rate": config.clip.frame_rate}
    expected["moco.queue_size"] -= expected["moco.queue_size"] % config.optim.batch_size  # as pretrain trims it
    if recipe not in known.pretrainings:
        words: tuple[str | Step, ...] = ("rspnet", "pretrain", "--recipe", recipe)
        return Step("pretrain", recipe, f"pretrain-{recipe}", words, expected)
    pretraining = known.pretrainings[recipe]
    videos = _extract(pretraining.dataset, known)
    # What the recipe leaves at our defaults: the released code computes in float32, loads the whole span, and counts every epoch.
    released = {"clip.load": "all", "optim.best_from": "start"} | _released(config)
    expected |= released | {"run.precision": "fp32"}
    open_ = {}
    if pretraining.gpus is not None:
        expected[BATCH_NORM] = config.optim.batch_size // pretraining.gpus
    else:
        open_[BATCH_NORM] = "the number of GPUs is not published"
    start = ("torchrun", "--nproc-per-node", str(pretraining.gpus or 4), "-m", "rspnet_cli", "pretrain")
    words = (*start, videos, "--recipe", recipe, "--precision", "fp32", *_sets(released))
    data = known.datasets[pretraining.dataset]
    expected["videos"] = data.splits["1"].train
    return Step("pretrain", recipe, f"pretrain-{recipe}", words, expected, open=open_, note=data.note)


def _finetune(name: str, result: Result, pretrain: Step, videos: Step) -> Step:
    assert result.recipe is not None
    config = finetune_settings(recipe=result.recipe)
    released = _released(config)
    expected = _given(config) | released
    expected |= {
        "model.width": 1.0,
        "model.checkpoint": "best",
        "data.select_on": "test",
        "data.split": ("all", "1"),
        "run.precision": "fp32",
        BATCH_NORM: result.videos_per_gpu,
    }
    open_ = {}
    if len({split for split, _ in videos.counts}) > 1:
        open_["data.split"] = "the released configurations run split 1, the paper's figure is given as the mean over the splits"
    if result.gpus is None:
        del expected["optim.batch_size"]
        open_["optim.batch_size"] = f"{result.videos_per_gpu} videos on each GPU; the number of GPUs is not published"
        start: tuple[str, ...] = ("rspnet", "finetune")
    else:
        start = ("torchrun", "--nproc-per-node", str(result.gpus), "-m", "rspnet_cli", "finetune")
    split: tuple[str, ...] = ("--split", "all") if "data.split" in open_ else ()
    options: tuple[str, ...] = ("--recipe", result.recipe, *split, "--select-on", "test", "--checkpoint", "best", "--precision", "fp32")
    words: tuple[str | Step, ...] = (*start, pretrain, "--frames", videos, *options, *_sets(released))
    return Step("finetune", name, name, words, expected, open=open_)


def _retrieval(name: str, result: Result, pretrain: Step, videos: Step) -> Step:
    options = ("--clips", str(RETRIEVAL_CLIPS), "--gallery-augment", "reference", "--checkpoint", "best")
    features = Step(
        "export-features",
        name,
        f"features-{name}",
        ("rspnet", "export-features", pretrain, "--frames", videos, *options),
        {
            "clips": RETRIEVAL_CLIPS,
            "pool": ("avg", "max"),
            "gallery_augment": "reference",
            "gallery_batch": 8,
            "split": "1",
            "random_init": False,
            "checkpoint": "best",
            "reestimate_bn": False,
            "precision": "fp32",
        },
        open={"pool": "the released code averages over the last feature map, the supplement takes its maximum"},
    )
    words: tuple[str | Step, ...] = ("rspnet", "eval-retrieval", features, "--topk", *result.percent)
    return Step("eval-retrieval", name, name, words, {"protocol": "split", "split": 1})
