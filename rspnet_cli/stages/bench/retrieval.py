"""bench retrieval: the search of eval-retrieval, beside the bare matrix product."""

from __future__ import annotations

import time

import numpy as np
import torch

from rspnet_cli.devices import search_device
from rspnet_cli.evaluation.features_file import read_features
from rspnet_cli.evaluation.protocol import split_rows
from rspnet_cli.evaluation.retrieval import QUERY_BLOCK, nearest
from rspnet_cli.manifest import MANIFEST, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.stages.bench.clock import HostClock, write_trace
from rspnet_cli.stages.bench.measured import Measured, Rate, Request, percent, repeats, shares
from rspnet_cli.timing import listening, timed
from rspnet_cli.usage import forget_peak, peak_bytes

_K = 50
# Videos of UCF101's first split, and the channels of the default backbone.
_UCF101_QUERIES, _UCF101_GALLERY, _CHANNELS = 3_783, 9_537, 512
_TARGET_S = 5.0


def bench_retrieval(request: Request) -> Measured:
    """Measure the search of every query for its 50 nearest. Raises InputError for features that are not what they should be."""
    queries, gallery, source = _features(request)
    k = min(_K, len(gallery) - 1) or 1
    device = search_device(request.device, len(queries) * len(gallery) * queries.shape[1])
    clock = HostClock()  # every search ends on the host
    forget_peak()
    before = peak_bytes()

    def search() -> None:
        with timed("other"):
            nearest(queries, gallery, k=k, device=device)

    search()
    with listening(clock):
        clock.mark()
        for _ in request.report.track(repeats(request.steps, target_s=_TARGET_S), total=request.steps, unit="searches", name="retrieval"):
            search()
            clock.mark()
    peak = peak_bytes()
    if request.trace is not None:
        write_trace(request.trace, torch.device(device), search)
    rate, parts = Rate.of([len(queries) / lap for lap in clock.laps_s()], "queries/s"), shares(clock.parts_s())
    product_s = _product_s(queries, gallery)
    of_product_rate = product_s * rate.median / len(queries)
    return Measured(
        setup={
            "features": source,
            "queries": len(queries),
            "gallery": len(gallery),
            "channels": queries.shape[1],
            "k": k,
            "device": device,
        },
        rate=rate,
        parts=parts,
        figures={"search_s": len(queries) / rate.median, "product_s": product_s, "of_product_rate": of_product_rate},
        memory={"host": peak, "of_the_search": None if peak is None or before is None else max(peak - before, 0)},
        verdict=_verdict(of_product_rate, device),
    )


def _features(request: Request) -> tuple[np.ndarray, np.ndarray, str]:
    """(Q, C) and (N, C) float32, and where they are from: test and train videos of an export's split 1, or all its videos, or random."""
    folder = request.work_dir / "export-features"
    if (folder / MANIFEST).exists():
        table = read_features(read_manifest(folder, stage="export-features").folder)
        if 1 in table.splits:
            train, test = split_rows(table, 1, Reporter.silent())
            return table.features[test], table.features[train], "export-features, split 1"
        if len(table.features) > 1:
            return table.features, table.features, "export-features, all against all"
    rng = np.random.default_rng(0)
    queries, gallery = (rng.standard_normal((rows, _CHANNELS), np.float32) for rows in (_UCF101_QUERIES, _UCF101_GALLERY))
    return queries, gallery, "random, of UCF101's size: there is no export-features"


def _product_s(queries: np.ndarray, gallery: np.ndarray) -> float:
    """Seconds of the product alone, on the CPU, block by block: the median of a few."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for start in range(0, len(queries), QUERY_BLOCK):
            _ = queries[start : start + QUERY_BLOCK] @ gallery.T
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def _verdict(of_product_rate: float, device: str) -> str:
    """What limits the search, and what to type."""
    reached = f"the search reaches {percent(of_product_rate)} of the rate of the bare matrix product on the CPU"
    if device != "cpu":
        return f"It runs on {device}, where {reached}; no flag makes it faster."
    return f"The CPU limits: {reached}; --device cuda, where there is one, multiplies faster and finds the same."
