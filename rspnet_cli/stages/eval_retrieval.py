"""eval-retrieval: features -> ranked neighbours of every query, recall@k, what chance gives, and how certain that is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rspnet_cli import distributed
from rspnet_cli.config import RetrievalConfig
from rspnet_cli.devices import search_device
from rspnet_cli.errors import InputError
from rspnet_cli.evaluation.features_file import FeatureTable, read_features
from rspnet_cli.evaluation.gallery import gallery_kind, refuse_other_split
from rspnet_cli.evaluation.intervals import mean_interval
from rspnet_cli.evaluation.protocol import choose_protocol, listed, split_rows
from rspnet_cli.evaluation.retrieval import Neighbours, chance_recall, nearest, recall_hits
from rspnet_cli.files import write_atomic
from rspnet_cli.manifest import Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stage import begin_stage
from rspnet_cli.tables import NEIGHBOURS

DEFAULT_TOPK = (1, 5, 10, 20, 50)


@dataclass(frozen=True)
class Search:
    """Who is looked for where: rows of the feature table, and how many gallery videos each query has (Q,)."""

    queries: np.ndarray
    gallery: np.ndarray
    sizes: np.ndarray
    leave_group_out: bool


def eval_retrieval(config: RetrievalConfig, *, features: Path, out: Path, force: bool = False, report: Reporter | None = None) -> Manifest:
    """Rank the gallery for every query by cosine and report recall@k.

    features: folder or manifest of an export. out: this stage's folder. Raises InputError for inputs that are not what they should be, a
    split that is not there, or an asked k that is larger than a gallery.
    """
    report = report or Reporter.silent()
    if distributed.world_size() > 1:
        raise InputError("eval-retrieval runs in one process: start it without torchrun.")
    export = read_manifest(features, stage="export-features")
    table = read_features(export.folder)
    protocol, split = choose_protocol(
        table,
        protocol=config.protocol,
        split=config.split,
        split_typed="split" in config.model_fields_set,
        without_splits="leave-one-out",
    )
    refuse_other_split(export, split)
    search = _split_search(table, split, report) if split is not None else _leave_one_out(table)
    topk = choose_topk(config.topk, int(search.sizes.min()), report)
    device = search_device(config.device, len(search.queries) * len(search.gallery) * table.features.shape[1])
    resolved = {"topk": topk, "protocol": protocol, "split": split, "device": device.partition(":")[0]}
    with begin_stage("eval-retrieval", resolved, inputs={"export-features": export}, out=out, force=force, report=report) as stage:
        if stage.manifest is not None:
            return stage.manifest
        found = _find(table, search, max(topk), device, report)
        write_atomic(stage.work / NEIGHBOURS.file, neighbour_rows(table, search, found).to_csv(index=False, lineterminator="\n"))
        results = {
            "protocol": protocol,
            "setup": _setup(export, split),
            "queries": len(search.queries),
            "queries_seen": table.num_seen(search.queries),
            "gallery": len(search.gallery),
            **_figures(table, search, found, topk, report),
        }
        return stage.finish(results=results, artifacts=[NEIGHBOURS.file], classes_sha256=export.classes_sha256)


def _setup(export: Manifest, split: int | None) -> dict[str, Any]:
    """What a recall depends on beside the features' encoder, in one place: what to name with every figure."""
    return {
        "split": split,
        "clips": export.config.get("clips"),
        "pool": export.config.get("pool"),
        "gallery": gallery_kind(export),
        "distance": "cosine",
    }


def choose_topk(typed: tuple[int, ...] | None, smallest_gallery: int, report: Reporter) -> list[int]:
    """The ks to report, ascending. Typed ones must fit every gallery; of the default ones those that do not are left out, saying so."""
    if typed is not None:
        if not typed or min(typed) < 1:
            raise InputError("--topk takes whole numbers from 1 up, such as --topk 1 5 10.")
        if max(typed) > smallest_gallery:
            raise InputError(
                f"--topk {max(typed)} is more than the {smallest_gallery} videos of the smallest gallery of a query: use at most that."
            )
        return sorted(set(typed))
    fitting = [k for k in DEFAULT_TOPK if k <= smallest_gallery]
    if len(fitting) < len(DEFAULT_TOPK):
        dropped = ", ".join(str(k) for k in DEFAULT_TOPK[len(fitting) :])
        report.info(f"Recall@k is left out for k = {dropped}: the smallest gallery has {smallest_gallery} videos.")
    return fitting


def _split_search(table: FeatureTable, split: int, report: Reporter) -> Search:
    train, test = split_rows(table, split, report)
    return Search(queries=test, gallery=train, sizes=np.full(len(test), len(train)), leave_group_out=False)


def _leave_one_out(table: FeatureTable) -> Search:
    group = table.group
    sizes = len(group) - np.bincount(group)[group]
    if sizes.min() == 0:
        raise InputError(
            "All videos are of one group, so leaving out a query's group leaves no gallery: give the videos groups of their own."
        )
    everything = np.arange(len(group))
    return Search(queries=everything, gallery=everything, sizes=sizes, leave_group_out=True)


def _find(table: FeatureTable, search: Search, k: int, device: str, report: Reporter) -> Neighbours:
    groups = {}
    if search.leave_group_out:
        groups = {"query_groups": table.group[search.queries], "gallery_groups": table.group[search.gallery]}
    return nearest(
        table.features[search.queries],
        table.features[search.gallery],
        k=k,
        device=device,
        track=lambda steps: report.track(steps, total=len(steps), unit="blocks", name="eval-retrieval"),
        **groups,
    )


def neighbour_rows(table: FeatureTable, search: Search, found: Neighbours) -> pd.DataFrame:
    """The table NEIGHBOURS: a row for each query and rank."""
    k = found.index.shape[1]
    query, neighbour = np.repeat(search.queries, k), search.gallery[found.index.ravel()]
    ids, names = (table.videos[name].to_numpy(dtype=object) for name in ("id", "label_name"))
    labelled, same = table.label[query] >= 0, table.label[query] == table.label[neighbour]
    columns = {
        "query_id": ids[query],
        "rank": np.tile(np.arange(1, k + 1), len(search.queries)),
        "neighbour_id": ids[neighbour],
        "similarity": np.round(found.similarity.ravel(), 6),
        "query_label_name": names[query],
        "neighbour_label_name": names[neighbour],
        "correct": np.where(labelled, np.where(same, "True", "False"), ""),
    }
    return pd.DataFrame(columns)[NEIGHBOURS.header()]


def _figures(table: FeatureTable, search: Search, found: Neighbours, topk: list[int], report: Reporter) -> dict[str, Any]:
    """recall, chance and interval, each k -> figure, over the queries that have a label; None where there are none."""
    labels, gallery_labels = table.label[search.queries], table.label[search.gallery]
    labelled = labels >= 0
    if not labelled.any() or not (gallery_labels >= 0).any():
        report.info("Without labels on both sides there is no recall: the neighbours of every query are in neighbours.csv.")
        return {"recall": None, "chance": None, "interval": None}
    if not labelled.all():
        report.info(f"{(~labelled).sum()} of {len(labels)} queries have no label: they get neighbours, and recall is over the others.")
    if (gallery_labels < 0).any():
        report.info(
            f"{(gallery_labels < 0).sum()} of {len(gallery_labels)} gallery videos have no label: as neighbours they count as wrong."
        )
    rows, classes = search.queries[labelled], labels[labelled]
    same_class = np.bincount(gallery_labels[gallery_labels >= 0], minlength=table.label.max() + 1)[classes]
    if search.leave_group_out:
        # The query's own group is no part of its gallery.
        pairs, number = np.unique(np.stack([table.group, table.label], axis=1), axis=0, return_inverse=True)
        same_class = same_class - np.bincount(number, minlength=len(pairs))[number][rows]
    _warn_of_missing_classes(table, classes[same_class == 0], report)
    correct = gallery_labels[found.index[labelled]] == classes[:, None]  # (Q, k)
    hits = recall_hits(correct, topk)
    intervals = mean_interval(hits, table.group[rows])
    if len(set(table.group[rows].tolist())) == 1:
        report.warn("All queries are of one group, from which nothing can be said about others: the intervals are [0, 1].")
    return {
        "recall": {str(k): float(share) for k, share in zip(topk, hits.mean(axis=0), strict=True)},
        "chance": {str(k): chance_recall(same_class, search.sizes[labelled], k) for k in topk},
        "interval": {str(k): interval for k, interval in zip(topk, intervals.tolist(), strict=True)},
    }


def _warn_of_missing_classes(table: FeatureTable, classes: np.ndarray, report: Reporter) -> None:
    if len(classes):
        names = [table.class_names[label] for label in np.unique(classes).tolist()]
        report.warn(
            f"{len(classes)} queries have no video of their class in their gallery ({listed(names)}): "
            "they cannot be right, and count as misses here and in the chance level."
        )
