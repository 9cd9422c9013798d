"""`rspnet bench`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rspnet_cli.cli.options import (
    DEFAULT_RECIPE,
    WORK_DIR,
    AsJson,
    CompileEncoders,
    ConfigFile,
    Device,
    Precision,
    PretrainRecipe,
    Quiet,
    Sets,
    WorkDir,
    Workers,
    reporter,
    show_json,
)
from rspnet_cli.encoder.registry import check_clip_size


def bench(
    what: Annotated[str, typer.Argument(metavar="[WHAT]", help="extract, loader, step, export, retrieval or all.")] = "all",
    videos: Annotated[
        Path | None, typer.Option("--videos", help="Folder of the videos to extract.", show_default="those of the extraction")
    ] = None,
    recipe: PretrainRecipe = DEFAULT_RECIPE,
    config: ConfigFile = None,
    sets: Sets = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Videos of a training batch; of export alone clips of a pass.", show_default="as there"),
    ] = None,
    device: Device = None,
    precision: Precision = None,
    compile_: CompileEncoders = None,
    workers: Workers = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            help="Repeats of each measurement: steps, batches, searches, videos of each process.",
            show_default="about 20 s, at least 5",
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE.json", help="Also write a trace of a few repeats, for ui.perfetto.dev.", show_default=False),
    ] = None,
    work_dir: WorkDir = WORK_DIR,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure the stages on this machine, with these videos and settings, and say what limits each and which flag changes it.

    Settings mean what they mean for pretrain. What is measured is the code of the stages: extract on a sample of the sources, loader and
    step on <work-dir>/extract as pretrain would run (from its second epoch on, when files are no more hashed), export with the encoder of
    <work-dir>/pretrain or an untrained one, retrieval on <work-dir>/export-features or random features of UCF101's size. Nothing is
    written but the trace. all leaves out what the work directory does not allow, and says so.

    The parts of a step are shares of its time, without what lies within them; on a GPU of the GPU's time, "loader wait" then being its
    idle time. The convolutions' share of the best rate compares what the layers need (a query pass forward and backward, two key passes
    forward) with the fastest of three large convolutions timed here, at the same precision.

    --json prints {"machine", "measured": {WHAT: {"setup", "rate": {"unit", "median", "low", "high", "repeats"}, "parts": {part: share},
    "figures", "memory": {whose: bytes}, "verdict"}}, "left_out": {WHAT: why}, "trace"}. low and high are the quartiles over the repeats.
    """
    from rspnet_cli.config import ExportConfig
    from rspnet_cli.settings import flat_settings, pretrain_settings

    run = {"device": device, "precision": precision, "workers": workers}
    of_export = what == "export"
    settings = pretrain_settings(
        recipe=recipe,
        config_file=config,
        sets=sets or (),
        flags={f"run.{name}": value for name, value in run.items()}
        | {"run.compile": compile_, "optim.batch_size": None if of_export else batch_size},
    )
    export = flat_settings(ExportConfig, flags=run | {"batch_size": batch_size if of_export else None})
    # Before torch is imported, which takes seconds.
    check_clip_size(settings.model.backbone, frames=settings.clip.frames, side=settings.clip.size)
    from rspnet_cli.stages.bench import Request
    from rspnet_cli.stages.bench import bench as stage

    found = stage(
        what,
        Request(
            work_dir=work_dir,
            config=settings,
            export=export,
            videos=videos,
            device=device or "auto",
            steps=steps,
            trace=trace,
            report=reporter(quiet),
        ),
    )
    if as_json:
        show_json(found)
        return
    for name, measured in found["measured"].items():
        _show(name, measured)
    for name, why in found["left_out"].items():
        typer.echo(f"{name}: left out. {why}")
    if found["trace"] is not None:
        typer.echo(f"Trace: {found['trace']}")


def _show(name: str, measured: Mapping[str, Any]) -> None:
    """A measurement as a table of its parts, its figures and its verdict."""
    from rspnet_cli.cli.tables import bytes_text, show_table

    rate = measured["rate"]
    spread = f"{rate['median']:,.4g} {rate['unit']} ({rate['low']:,.4g} to {rate['high']:,.4g}, {rate['repeats']} repeats)"
    setup = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in measured["setup"].items() if value is not None)
    parts = [[part, f"{100 * share:.1f} %"] for part, share in measured["parts"].items()]
    figures = _figures(measured["figures"])
    figures += [(f"memory, {whose.replace('_', ' ')}", bytes_text(used)) for whose, used in measured["memory"].items() if used is not None]
    width = max(len(key) for key, _ in figures)
    notes = [f"{key:<{width}}  {text}" for key, text in figures]
    show_table(f"{name}: {spread}\n{setup}", ["part", "of the time"], parts, [*notes, f"{measured['verdict']}\n"])


def _figures(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Figures in words, those of a group one after the other; the names are those of --json."""
    words: list[tuple[str, str]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            words += _figures(value)
        elif value is not None:
            words.append((name.replace("_", " "), _figure(name, value)))
    return words


def _figure(name: str, value: float) -> str:
    """A figure with the unit that its name tells; what has none is a share."""
    from rspnet_cli.cli.tables import bytes_text

    if "bytes" in name:
        return bytes_text(value) + ("/s" if name.endswith("_per_s") else "")
    if "flop" in name:
        return f"{value / 1e9:,.4g} GFLOP" + ("/s" if "_per_s" in name else "")
    if isinstance(value, int) or "_per_s" in name or name.endswith(("_per_cpu_s", "_worth")):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return f"{value:,.3g} s" if name.endswith("_s") else f"{100 * value:.1f} %"
