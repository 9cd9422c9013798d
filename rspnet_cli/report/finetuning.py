"""The section on a fine-tuned classifier: accuracies beside a random start and chance, its curves, and what it takes for what."""

from __future__ import annotations

from collections.abc import Sequence

from rspnet_cli.manifest import Manifest, checked_artifact
from rspnet_cli.report.charts import Line
from rspnet_cli.report.classification import accuracy_figure
from rspnet_cli.report.commands import command_of, running_command
from rspnet_cli.report.confusion import confusion_figure, read_confusion
from rspnet_cli.report.figure import LeftOut, Section
from rspnet_cli.report.found import Found, read_log
from rspnet_cli.report.html import Html, element, join, number
from rspnet_cli.report.training import SPEED, Panel, progress, run_charts
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
        rows, speeds = (read_log(unfinished.folder / name) for name in (FINETUNE_METRICS.file, TIMINGS.file))
        title = f"Unfinished: {progress(rows, unfinished.config)}"
        command = running_command("finetune", unfinished.config, found.path)
        parts.append(run_charts("live-finetune", title, [(rows, _PANELS), (speeds, SPEED)], command))
    if manifest is not None and not manifest.is_imported:
        parts += _finished(manifest, baseline, found)
    if not parts and manifest is not None:
        return LeftOut(KEY, TITLE, "The network is imported: how well it does on these videos is not known here.")
    if not parts:
        return LeftOut(KEY, TITLE, found.missing("finetune"))
    return Section(KEY, TITLE, join(parts))


def _finished(manifest: Manifest, baseline: Manifest | None, found: Found) -> list[Html]:
    commands = [command_of(each, found.path) for each in (manifest, baseline) if each is not None]
    parts = [_accuracy(manifest, baseline, commands)]
    # The mean over all splits has neither: they are those of each split, in its own folder.
    listed = {artifact.path for artifact in manifest.artifacts}
    if "confusion_finetune.csv" in listed:
        names, counts = read_confusion(checked_artifact(manifest, "confusion_finetune.csv"), manifest.advice)
        shown = confusion_figure("confusion-finetune", "Confusion of the fine-tuned network", names, counts, commands[0])
        parts.append(element("div", shown, class_="wide"))
    if FINETUNE_METRICS.file in listed:
        logs = [
            (read_log(checked_artifact(manifest, FINETUNE_METRICS.file)), _PANELS),
            (read_log(checked_artifact(manifest, EPOCHS.file)), _EPOCH_PANELS),
            (read_log(manifest.folder / TIMINGS.file), SPEED),
        ]
        parts.append(run_charts("finetune", f"Finished: {number(manifest.results['epochs'])} epochs", logs, commands[0]))
    return parts


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
