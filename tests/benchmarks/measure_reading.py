"""Reading clips to train on: two clips of 32 frames of each video, as a loader worker does it on one core, against other readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from rspnet_cli.clips.dataset import ClipBatch, ClipPairs, Request, batches
from rspnet_cli.clips.draws import clip_rng
from rspnet_cli.clips.sampling import random_clip
from rspnet_cli.clips.slots import Slots
from rspnet_cli.codecs import Codec
from rspnet_cli.config import AugmentConfig, ClipConfig, ExtractConfig
from rspnet_cli.settings import validated
from rspnet_cli.stages.extract import extract
from rspnet_cli.videos.frames import read_frames
from tests.benchmarks.comparison import Rate, Row, cpu_seconds, peer, rates
from tests.benchmarks.natural import natural_video

# A clip of UCF101 has 186 frames on average; one key frame at its beginning.
NUM_VIDEOS, NUM_FRAMES = 6, 180
SHORT_SIDE = 128
CLIP = ClipConfig(frames=16, speeds=(2,), load="all")  # spans 32 frames, all of which are read
SPAN = 32
BATCH = 6
EPOCHS = 20
"""How often the samples go through a loader, whose start would else count."""
SEED = 0
UNIT = "samples/CPU-s"


@dataclass(frozen=True)
class Sample:
    """What everybody reads."""

    row: int
    epoch: int

    @property
    def clips(self) -> list[np.ndarray]:
        """The frames of the two clips, each (32,), consecutive: those that our loader draws."""
        return [random_clip(NUM_FRAMES, frames=SPAN, rng=clip_rng(SEED, self.epoch, self.row, number)) for number in range(2)]

    @property
    def frames(self) -> list[int]:
        """Of both clips, each frame once, in the order of their times: the least work for a reader."""
        return sorted({int(frame) for clip in self.clips for frame in clip})


SAMPLES = [Sample(row, epoch) for epoch in range(1, 5) for row in range(NUM_VIDEOS)]


def measure() -> list[Row]:
    """The rows of reading."""
    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="rspnet-bench-") as temporary:
        folder = Path(temporary)
        for number in range(NUM_VIDEOS):
            natural_video(folder / "sources" / f"v{number}.mp4", NUM_FRAMES, seed=number)
        h264, raw = (_stored(folder, codec) for codec in ("h264", "raw"))
        sources, stored = (sorted(folder.glob(f"{place}/*.mp4")) for place in ("sources", "h264/frames"))
        ours: dict[str, Callable[[], object]] = {
            "planes": partial(_read, ClipPairs(h264, CLIP, AugmentConfig(), seed=SEED, planes=True)),
            "RGB": partial(_read, ClipPairs(h264, CLIP, AugmentConfig(), seed=SEED)),
            "raw": partial(_read, ClipPairs(raw, CLIP, AugmentConfig(), seed=SEED)),
        }
        theirs: dict[str, Callable[[], object]] = {
            "decode alone, clip by clip": partial(_decode_clips, stored),
            "decode alone, shared frames once": partial(_decode_once, stored),
        }
        for name, reader in _readers().items():
            theirs |= {f"{name} on the source": partial(reader, sources), f"{name} on the store": partial(reader, stored)}
        measured = rates(ours | theirs, amount=len(SAMPLES), repeats=7, clock=cpu_seconds)
        loaders: dict[str, Callable[[], object]] = {
            name: partial(_load, ClipPairs(files, CLIP, AugmentConfig(), seed=SEED, planes=name == "planes"))
            for name, files in (("planes", h264), ("RGB", h264), ("raw", raw))
        }
        loaded = rates(loaders, amount=EPOCHS * len(SAMPLES), repeats=3, clock=cpu_seconds)
        if peer("decord") is not None:
            loaded |= rates({"decord on the source": partial(_load_by_decord, sources)}, amount=len(SAMPLES), repeats=3, clock=cpu_seconds)
    wanted = {"decode alone, clip by clip": "≥ 0.85", "decord on the source": "≥ 10"}
    rows = [_row("planes", measured, name, wanted.get(name, "")) for name in theirs]
    rows += [_row("RGB", measured, name) for name in theirs]
    rows += [_row("planes", measured, "RGB"), _row("raw", measured, "RGB", "≥ 10")]
    through = "through one worker to the training process"
    rows += [_row(name, loaded, "decord on the source", "", through) for name in ("planes", "RGB", "raw") if len(loaded) == 4]
    return [*rows, _row("raw", loaded, "RGB", "≥ 10", through)]


def _row(name: str, measured: dict[str, Rate], other: str, target: str = "", how: str = "one core") -> Row:
    what = f"2 clips x {SPAN} frames, {SHORT_SIDE} px store, {how}: {name if name == 'raw' else f'H.264, {name}'}"
    shown = f"ours: H.264, {other}" if other in ("planes", "RGB") else other
    return Row("reading", what, UNIT, measured[name], shown, measured[other], target)


def _stored(folder: Path, codec: Codec) -> object:
    config = validated(ExtractConfig, {"short_side": SHORT_SIDE, "workers": 1, "dataset": "plain", "codec": codec})
    return read_frames(extract(config, videos=folder / "sources", out=folder / codec)).files


# Contenders. Ours also cuts the crops out and packs them; the others leave whole frames.


def _read(dataset: ClipPairs) -> None:
    """As a worker does it, in memory that is used again."""
    slots = _slots(dataset.batch_bytes(BATCH))
    for start in range(0, len(SAMPLES), BATCH):
        requests = [Request(sample.epoch, sample.row, speed=2) for sample in SAMPLES[start : start + BATCH]]
        batch = slots.parcel(0, partial(dataset.read, requests)).open()
        assert isinstance(batch, ClipBatch)
        assert all(crops.num_frames == SPAN for crops in batch.clips)


@cache
def _slots(size: int) -> Slots:
    return Slots(1, size)


def _load(dataset: ClipPairs) -> None:
    """Through the loader, to where the training process has seen every byte. Files are hashed once, as in a training."""
    dataset.skip_checks()
    requests = [Request(sample.epoch, sample.row, speed=2) for sample in SAMPLES * EPOCHS]
    order = [requests[start : start + BATCH] for start in range(0, len(requests), BATCH)]
    for batch in batches(dataset, order, batch_size=BATCH, workers=1):
        for crops in batch.clips:
            crops.pixels.max()


class _DecordClips(Dataset[torch.Tensor]):
    """What one would write: a decord reader in a torch Dataset, whole frames of both clips."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(SAMPLES)

    def __getitem__(self, place: int) -> torch.Tensor:
        decord, sample = peer("decord"), SAMPLES[place]
        assert decord is not None
        reader = decord.VideoReader(str(self.paths[sample.row]), ctx=decord.cpu(0), num_threads=1)
        clips = [reader.get_batch(clip.tolist()).asnumpy() for clip in sample.clips]
        return torch.from_numpy(np.stack(clips))


def _load_by_decord(paths: Sequence[Path]) -> None:
    for batch in DataLoader(_DecordClips(paths), batch_size=BATCH, num_workers=1, prefetch_factor=4):
        batch.max()


def _decode_clips(paths: Sequence[Path]) -> None:
    for sample in SAMPLES:
        with av.open(str(paths[sample.row])) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
            times = [entry.timestamp for entry in stream.index_entries]
            for clip in sample.clips:
                container.seek(times[clip[0]], stream=stream)
                next(frame for frame in container.decode(stream) if frame.pts == times[clip[-1]])


def _decode_once(paths: Sequence[Path]) -> None:
    for sample in SAMPLES:
        with av.open(str(paths[sample.row])) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
            entries = list(stream.index_entries)
            times, keys = [entry.timestamp for entry in entries], [index for index, entry in enumerate(entries) if entry.is_keyframe]
            first, second = sorted(sample.clips, key=lambda clip: int(clip[0]))
            position = -1
            for clip in (first, second):
                key = max(key for key in keys if key <= clip[0])
                if not key <= position:
                    container.seek(times[key], stream=stream)
                    frames = container.decode(stream)
                if clip[-1] > position:
                    next(frame for frame in frames if frame.pts == times[clip[-1]])
                position = int(clip[-1])


def _readers() -> dict[str, Callable[[Sequence[Path]], None]]:
    readers: dict[str, Callable[[Sequence[Path]], None]] = {"PyAV": _pyav}
    if peer("decord") is not None:
        readers["decord"] = _decord
    if peer("cv2") is not None:
        readers["OpenCV"] = _opencv
    return readers


def _pyav(paths: Sequence[Path]) -> None:
    """Decode from the key frame in front on, RGB of what is wanted."""
    for sample in SAMPLES:
        with av.open(str(paths[sample.row])) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
            wanted = sample.frames
            times = [entry.timestamp for entry in stream.index_entries]
            asked, last = {sorted(times)[frame] for frame in wanted}, sorted(times)[wanted[-1]]
            container.seek(sorted(times)[wanted[0]], stream=stream)
            frames = []
            for frame in container.decode(stream):
                if frame.pts in asked:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if frame.pts == last:
                    break
        assert len(frames) == len(wanted)


def _decord(paths: Sequence[Path]) -> None:
    """Its batch reading, which seeks and skips by itself."""
    decord = peer("decord")
    assert decord is not None
    for sample in SAMPLES:
        reader = decord.VideoReader(str(paths[sample.row]), ctx=decord.cpu(0), num_threads=1)
        frames = reader.get_batch(sample.frames).asnumpy()
        assert len(frames) == len(sample.frames)


def _opencv(paths: Sequence[Path]) -> None:
    """One jump to the first frame, then forwards; pictures are made of the wanted frames alone."""
    cv2 = peer("cv2")
    assert cv2 is not None
    cv2.setNumThreads(1)
    for sample in SAMPLES:
        wanted = sample.frames
        reader = cv2.VideoCapture(str(paths[sample.row]), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        reader.set(cv2.CAP_PROP_POS_FRAMES, wanted[0])
        asked = set(wanted)
        frames = []
        for index in range(wanted[0], wanted[-1] + 1):
            assert reader.grab()
            if index in asked:
                frames.append(reader.retrieve()[1])
        reader.release()
        assert len(frames) == len(wanted)
