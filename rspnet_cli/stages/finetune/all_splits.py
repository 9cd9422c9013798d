"""Fine-tune on every split in turn, each in a folder of its own, and write down their mean: the paper's figure over three splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rspnet_cli import distributed
from rspnet_cli.config import FinetuneConfig
from rspnet_cli.evaluation.intervals import class_mean_interval
from rspnet_cli.evaluation.task import split_numbers
from rspnet_cli.evaluation.videos import LabelledVideos, labelled_videos
from rspnet_cli.files import write_atomic
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stage import begin_stage
from rspnet_cli.stages.finetune.one_split import finetune_one_split
from rspnet_cli.tables import FINETUNE_PREDICTIONS, read_table
from rspnet_cli.videos.frames import read_frames

MEASURES = ("top1", "top5", "mean_class")


def finetune_all_splits(
    config: FinetuneConfig, *, inputs: Mapping[str, Path], out: Path, device: torch.device, force: bool, report: Reporter
) -> Manifest:
    """Run `finetune_one_split` for each split (or fold) into `<out>/split-N`; the manifest in `out` names them and holds their means.

    Each split has its own lock, manifest and unfinished state, so a stopped run continues with the split it was in. Raises as `finetune`.
    """
    identity = config.identity()
    identity["run"]["processes"] = distributed.world_size()
    with begin_stage("finetune", identity, inputs=inputs, out=out, force=force, report=report) as stage:
        if stage.manifest is not None:
            return stage.manifest
        videos = labelled_videos(read_frames(stage.inputs["extract"]))
        manifests = []
        for number in split_numbers(videos, seed=config.run.seed):
            done = stage.work / f"split-{number}"
            report.info(f"finetune: split {number}.")
            manifest = finetune_one_split(
                config.model_copy(update={"data": config.data.model_copy(update={"split": number})}),
                inputs=inputs,
                out=out / f"split-{number}",
                device=device,
                # A forced run that was stopped does not start its finished splits anew.
                force=force and not distributed.share(done.exists()),
                report=report,
            )
            if distributed.is_main():
                write_atomic(done, "")
            manifests.append(manifest)
        if distributed.is_main():
            # The splits are inputs of their mean: known only now, and found again by their digests.
            stage.inputs |= {f"split {manifest.results['split']}": manifest for manifest in manifests}
            stage.finish(
                results=_mean(manifests, videos),
                classes_sha256=stage.inputs["extract"].classes_sha256,
                environment={"device": config.run.device, "workers": config.run.workers},
            )
        distributed.barrier()
        return stage.manifest or read_manifest(out, stage="finetune", verify=False)


def _mean(splits: Sequence[Manifest], videos: LabelledVideos) -> dict[str, Any]:
    """The results over several splits: means of theirs, sums of their queries, and what each came to."""
    results = [manifest.results for manifest in splits]
    first, seen = results[0], [item["queries_seen"] for item in results]
    return {
        "protocol": first["protocol"],
        "split": "all",
        "videos": sum(item["videos"] for item in results),
        "classes": max(item["classes"] for item in results),
        "epochs": first["epochs"],
        "selected_on": first["selected_on"],
        "selection_videos": sum(item["selection_videos"] for item in results),
        "selection_top1": None if first["selection_top1"] is None else float(np.mean([item["selection_top1"] for item in results])),
        "best_epoch": None,
        "queries": sum(item["queries"] for item in results),
        "queries_seen": None if None in seen else sum(seen),
        "clips": first["clips"],
        **{measure: float(np.mean([item[measure] for item in results])) for measure in MEASURES},
        "interval": _intervals(splits, videos),
        "chance": {name: float(np.mean([item["chance"][name] for item in results])) for name in first["chance"]},
        "splits": {item["split"]: {key: item[key] for key in (*MEASURES, "interval", "selection_top1", "best_epoch")} for item in results},
    }


def _intervals(splits: Sequence[Manifest], videos: LabelledVideos) -> dict[str, list[float]]:
    """95 % intervals of the means over splits. A group is drawn with all its videos, in whichever splits they are tested."""
    group = dict(zip(videos.videos["id"], videos.group.tolist(), strict=True))
    tables = [read_table(manifest.artifact_path(FINETUNE_PREDICTIONS.file), FINETUNE_PREDICTIONS) for manifest in splits]
    tested = pd.concat([table.assign(split=number) for number, table in enumerate(tables)], ignore_index=True)
    rank = tested["finetune_rank"].fillna(0).to_numpy(np.int64)
    groups = tested["id"].map(group).to_numpy(np.int64)
    split = tested["split"].to_numpy(np.int64)
    label = tested["label"].to_numpy(np.int64)
    right, in_five = (rank == 1).astype(np.float64), ((rank >= 1) & (rank <= 5)).astype(np.float64)
    of_split_and_class = split * (label.max() + 1) + label
    return {
        "top1": class_mean_interval(right, split, groups).tolist(),
        "top5": class_mean_interval(in_five, split, groups).tolist(),
        "mean_class": class_mean_interval(right, of_split_and_class, groups).tolist(),
    }
