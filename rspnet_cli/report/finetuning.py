"""The section on a fine-tuned classifier: accuracies beside a random start and chance, its curves, and what it takes for what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rspnet_cli.errors import InputError
from rspnet_cli.lineage import flatten
from rspnet_cli.manifest import Manifest, checked_artifact
from rspnet_cli.report.charts import Line
from rspnet_cli.report.classification import accuracy_figure
from rspnet_cli.report.commands import command_line, command_of
from rspnet_cli.report.confusion import confusion_figure, read_confusion
from rspnet_cli.report.figure import LeftOut, Section
from rspnet_cli.report.found import Found, Unfinished, find_unfinished, read_log
from rspnet_cli.report.html import Html, element, join, number
from rspnet_cli.report.training import SPEED, Panel, Row, progress, run_charts
from rspnet_cli.tables import EPOCHS, FINETUNE_METRICS, TIMINGS

KEY, TITLE = "finetuning", "Fine-tuning"
_MEASURES = {"top1": "top-1", "top5": "top-5", "mean_class": "mean class"}
_PANELS = (
    Panel("loss", "Loss of training clips", (("loss", "cross entropy"),), ""),
    Panel("top", "Accuracy of training clips", (("top1", "top-1"), ("top5", "top-5")), "", share_axis=True),
    Panel("lr", "Learning rate", (("lr", "learning rate"),), ""),
    Panel("grad", "Gradient norm", (("grad_norm", "gradient norm"),), ""),
)
_EPOCH_PANELS = (
    Panel(
        "selection",
        "Accuracy that chooses the epoch",
        (("selection_top1", "top-1"),),
        "Of the videos that choose the best epoch, one centre clip each.",
        share_axis=True,
        x="epoch",
    ),
)


def finetuning(found: Found, baseline: Manifest | None) -> Section | LeftOut:
    """What a fine-tuning came to, and the curves of one that runs or was stopped."""
    manifest, unfinished = found.stages.get("finetune"), found.unfinished.get("finetune")
    parts: list[Html] = []
    if unfinished is not None:
        parts += _unfinished(unfinished, found)
    if manifest is not None and not manifest.is_imported:
        parts += _finished(manifest, baseline, found)
    if not parts and manifest is not None:
        return LeftOut(KEY, TITLE, "The network is imported: how well it does on these videos is not known here.")
    if not parts:
        return LeftOut(KEY, TITLE, found.missing("finetune"))
    return Section(KEY, TITLE, join(parts))


def _unfinished(unfinished: Unfinished, found: Found) -> list[Html]:
    """Curves so far; of a run over all splits those of each split that is done or begun."""
    command = command_line(unfinished.begun, found.path)
    if flatten(dict(unfinished.config)).get("data.split") != "all":
        rows = read_log(unfinished.work / FINETUNE_METRICS.file)
        title = f"Unfinished: {progress(rows, unfinished.config)}"
        return [run_charts("live-finetune", title, _logs(unfinished.work), command)]
    parts = [element("h3", "Unfinished: a fine-tuning on every split")]
    for folder in sorted(unfinished.begun.folder.glob("split-*"), key=lambda path: (len(path.name), path.name)):
        split, name = find_unfinished(folder, "finetune"), folder.name.replace("-", " ")
        if split is not None:
            title = f"Unfinished: {name}, {progress(read_log(split.work / FINETUNE_METRICS.file), split.config)}"
            parts.append(run_charts(f"live-{folder.name}", title, _logs(split.work), command))
        elif (unfinished.work / folder.name).exists():  # else it is of an earlier run
            parts.append(run_charts(f"done-{folder.name}", f"Finished: {name}", _logs(folder), command, folded=True))
    return parts if len(parts) > 1 else [*parts, element("p", "No figures yet.")]


def _logs(folder: Path) -> list[tuple[list[Row], tuple[Panel, ...]]]:
    """The tables of figures in a folder, each with what is drawn of it. Raises InputError for damaged ones."""
    panels = ((FINETUNE_METRICS, _PANELS), (EPOCHS, _EPOCH_PANELS), (TIMINGS, SPEED))
    return [(read_log(folder / table.file), drawn) for table, drawn in panels]


def _finished(manifest: Manifest, baseline: Manifest | None, found: Found) -> list[Html]:
    commands = [command_of(each, found.path) for each in (manifest, baseline) if each is not None]
    parts = [_accuracy(manifest, baseline, commands)]
    # The mean over all splits has neither confusion nor curves: they are those of each split, in its own folder.
    listed = {artifact.path for artifact in manifest.artifacts}
    if "confusion_finetune.csv" in listed:
        names, counts = read_confusion(checked_artifact(manifest, "confusion_finetune.csv"), manifest.advice)
        shown = confusion_figure("confusion-finetune", "Confusion of the fine-tuned network", names, counts, commands[0])
        parts.append(element("div", shown, class_="wide"))
    splits = manifest.results.get("splits", {}) if manifest.results["epochs"] else {}  # a network that was only tested has no curves
    for ref, name in zip(manifest.inputs[len(manifest.inputs) - len(splits) :], splits, strict=True):
        try:
            parts.append(_curves(manifest.read_input(ref, verify=False), f"split {name}", commands[0], folded=True))
        except InputError as error:
            parts.append(element("p", f"The curves of split {name} are left out: {error}"))
    if FINETUNE_METRICS.file in listed:
        parts.append(_curves(manifest, "", commands[0]))
    return parts


def _curves(manifest: Manifest, name: str, command: str, *, folded: bool = False) -> Html:
    """The curves of one split's training. Raises InputError for damaged tables."""
    for table in (FINETUNE_METRICS, EPOCHS):
        checked_artifact(manifest, table.file)
    title = f"Finished: {name + ', ' if name else ''}{number(manifest.results['epochs'])} epochs"
    return run_charts(f"finetune{'-' + name.replace(' ', '-') if name else ''}", title, _logs(manifest.folder), command, folded=folded)


def _accuracy(manifest: Manifest, baseline: Manifest | None, commands: Sequence[str]) -> Html:
    results = manifest.results
    lines = [_line("this network", manifest, "s1")]
    if baseline is not None:
        lines.append(_line("from random weights", baseline, "s2"))
    lines.append(Line("chance", [results["chance"].get(measure) for measure in _MEASURES], "s3"))
    trained = "the last layer alone was trained" if manifest.config["model"]["linear"] else "the whole network was trained"
    trained += (
        f" on {number(results['videos'])} videos for {number(results['epochs'])} epochs; the epoch was chosen on: {results['selected_on']}"
    )
    note = (
        f"{number(results['queries'])} test videos of {number(results['classes'])} classes (split {results['split']}); "
        f"{trained if results['epochs'] else 'tested as it was, without training'}. Whiskers: 95 % intervals."
    )
    labels = list(_MEASURES.values())
    key, title = "finetune-accuracy", "Accuracy on test videos"
    return accuracy_figure(key, title, labels, lines, short_labels=labels, commands=commands, note=note)


def _line(label: str, manifest: Manifest, style: str) -> Line:
    results = manifest.results
    return Line(label, [results[measure] for measure in _MEASURES], style, [results["interval"].get(measure) for measure in _MEASURES])
