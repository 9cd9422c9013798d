"""`rspnet merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rspnet_cli.cli.options import WORK_DIR, AsJson, Force, Out, Quiet, WorkDir, reporter, show_figures, show_json


def merge(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="extract or export-features.", show_default=False)],
    shards: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[SHARDS]...", help="Folders of all shards, in any order.", show_default="<result>.shard-* beside it"),
    ] = None,
    work_dir: WorkDir = WORK_DIR,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Put the parts together that --shard 1/N to N/N have made: the result of one run, equal in every byte.

    Frames are moved, not copied, and the folders of the shards are removed once the result is whole. Shards that are missing, unfinished,
    there twice or of different runs are named, and nothing is changed. Stopped at any moment, the same command finishes it.
    """
    from rspnet_cli.stages.merge import merge as merge_stage

    manifest = merge_stage(stage, out=out or work_dir / stage, shards=shards or (), force=force, report=reporter(quiet))
    (show_json if as_json else show_figures)(manifest.results)
