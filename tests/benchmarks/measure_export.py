"""export-features against its own floor: the bare network over the very same batches, already decoded, resized and in memory.

Measured from frame files to features (reading, resizing, batching, forward), with one loader worker, as the stage does it for a piece of
videos; starting up and writing are left out, which a set of real size does not notice. In fp32 and in bf16, whose features are compared.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch

from rspnet_cli.config import ExportConfig, ExtractConfig
from rspnet_cli.devices import computes_bf16
from rspnet_cli.encoder.load import PretrainedEncoder, load_encoder
from rspnet_cli.evaluation.encoding import clip_features, clips_of, input_of
from rspnet_cli.evaluation.features import clip_batches, describe_videos, load_clips
from rspnet_cli.manifest import Manifest
from rspnet_cli.settings import validated
from rspnet_cli.stages.extract import extract
from rspnet_cli.videos.frames import FramesTable, read_frames
from tests.benchmarks.comparison import Row, rates
from tests.benchmarks.natural import natural_video
from tests.pretrained import make_pretrain

NUM_VIDEOS, NUM_FRAMES = 24, 150
SCENES = 4
"""Different videos; the others are copies of these."""
REPEATS = 3


def measure() -> list[Row]:
    """Rows for fp32 and, where the machine computes it, bf16 against the bare forward; the feature errors of bf16 are printed."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precisions = ("fp32", "bf16") if computes_bf16(torch.device(device)) else ("fp32",)
    with tempfile.TemporaryDirectory() as folder:
        table, pretrain = make_inputs(Path(folder))
        encoder = load_encoder(pretrain.folder, device=device)
        configs = {name: validated(ExportConfig, {"precision": name, "workers": 1}) for name in precisions}
        batches = ready_batches(encoder, table, configs["fp32"])
        contenders: dict[str, Callable[[], object]] = {}
        for name, config in configs.items():
            contenders[name] = partial(export, encoder, table, config)
            contenders[f"{name}, bare"] = partial(bare, encoder, batches, config)
        exact = export(encoder, table, configs["fp32"])
        check(exact, bare(encoder, batches, configs["fp32"]))
        if "bf16" in configs:
            print(f"export-features, bf16: {errors(exact, export(encoder, table, configs['bf16']))}")
        clips = NUM_VIDEOS * configs["fp32"].clips
        rows: list[Row] = []
        # Where the loader's worker has no core of its own, wall time says little: the main process' CPU time is what export adds.
        clocks = {"clips/s": time.perf_counter} | ({"clips/CPU-s, main process": time.process_time} if device == "cpu" else {})
        for unit, clock in clocks.items():
            found = rates(contenders, amount=clips, repeats=REPEATS, clock=clock)
            what = f"r3d18, 16 x 112 x 112, 10 clips of {NUM_VIDEOS} videos, batch {configs['fp32'].batch_size}"
            for name in configs:
                row = (f"{what}, {name}", unit, found[name])
                rows.append(Row("export-features", *row, "bare forward", found[f"{name}, bare"], "0.9"))
            if "bf16" in found:
                rows.append(Row("export-features", f"{what}, bf16", unit, found["bf16"], "fp32", found["fp32"]))
    return rows


def make_inputs(folder: Path) -> tuple[FramesTable, Manifest]:
    """An extraction of videos of UCF101's usual length, and an encoder of full width with random weights."""
    (folder / "videos").mkdir()
    for scene in range(SCENES):
        first = natural_video(folder / "videos" / f"{scene:02d}.mp4", NUM_FRAMES, seed=scene)
        for copy in range(scene + SCENES, NUM_VIDEOS, SCENES):
            shutil.copy(first, folder / "videos" / f"{copy:02d}.mp4")
    extracted = extract(validated(ExtractConfig, {"dataset": "plain", "workers": 1}), videos=folder / "videos", out=folder / "extract")
    settings = {"model": {"backbone": "r3d18"}, "clip": {"frames": 16, "size": 112}}
    return read_frames(extracted), make_pretrain(folder / "pretrain", inputs={"extract": extracted.folder}, settings=settings)


def export(encoder: PretrainedEncoder, table: FramesTable, config: ExportConfig) -> np.ndarray:
    """Clip features (videos * clips, C), as the stage makes them."""
    clips = clips_of(encoder, table.files, config.clips)
    with closing(load_clips(clips, range(len(table)), workers=1, pin_memory=encoder.device.type == "cuda")) as videos:
        forward = partial(clip_features, encoder, config)
        (piece,) = describe_videos(forward, videos, [len(table)], batch_size=config.batch_size, clip_input=input_of(encoder))
    return piece[0].reshape(-1, encoder.channels)


def ready_batches(encoder: PretrainedEncoder, table: FramesTable, config: ExportConfig) -> list[torch.Tensor]:
    """What the network is given, (b, 3, T, S, S) float32, on its device."""
    clips = clips_of(encoder, table.files, config.clips)
    with closing(load_clips(clips, range(len(table)), workers=0, pin_memory=False)) as videos:
        return [batch.clone() for batch in clip_batches(videos, config.batch_size, input_of(encoder))]


@torch.inference_mode()
def bare(encoder: PretrainedEncoder, batches: list[torch.Tensor], config: ExportConfig) -> np.ndarray:
    """The network alone: its pooled features (clips, C)."""
    return torch.cat([clip_features(encoder, config, batch) for batch in batches]).cpu().numpy()


def check(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Both describe the same clips."""
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max(), "export and the bare forward give other features"


def errors(exact: np.ndarray, rounded: np.ndarray) -> str:
    """What bf16 changes in clip features (n, C), and how far apart different clips are to compare it with."""
    relative = np.linalg.norm(rounded - exact, axis=1) / np.linalg.norm(exact, axis=1)
    unit, other = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (exact, rounded))
    cosine = (unit * other).sum(axis=1)
    between = 1 - (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return (
        f"relative error {np.median(relative):.2%} (largest {relative.max():.2%}), 1 - cosine with fp32 {np.median(1 - cosine):.1e} "
        f"(largest {(1 - cosine).max():.1e}); two clips of the set differ by {np.median(between):.1e}"
    )
