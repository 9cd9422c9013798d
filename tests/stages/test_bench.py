"""bench measures what the stages run, says where the time goes, and leaves nothing behind. No test here depends on speed."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rspnet_cli import devices
from rspnet_cli.config import ExportConfig, PretrainConfig
from rspnet_cli.encoder.encoder import Encoder
from rspnet_cli.errors import InputError, RspnetError, Stopped
from rspnet_cli.manifest import Manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import validated
from rspnet_cli.stages import bench as module
from rspnet_cli.stages.bench import TRACED, WHATS, Request, bench, clock, convolutions, extract, loader, measured, retrieval, step
from rspnet_cli.stages.bench import export as export_module
from rspnet_cli.stages.bench.measured import Rate, repeats, shares
from rspnet_cli.stages.pretrain import pretrain
from rspnet_cli.timing import Part, listening, timed
from rspnet_cli.usage import Usage
from tests.extracted import make_extract, make_videos
from tests.listener import Listener
from tests.pretrained import SMALL, make_pretrain
from tests.sentences import one_sentence, refused

TINY: dict[str, dict[str, Any]] = {
    "model": {"width": 0.1, "embedding_dim": 8},
    "clip": {"frames": 4, "size": 16},
    "moco": {"queue_size": 8, "mask_same_video": True},
    "optim": {"batch_size": 4, "epochs": 3, "lr": 0.02},
    "run": {"workers": 0, "log_interval": 1},
}
PARTS: dict[str, set[Part]] = {
    "extract": {"decode", "scale", "encode", "hash", "write", "other"},
    "loader": {"open", "decode", "convert", "crop", "other"},
    "step": {"augmentation", "key forwards", "query forward", "objective", "backward", "optimizer", "EMA and queue", "loader wait"},
    "export": {"loader wait", "transfer", "preprocess", "forward", "other"},
    "retrieval": {"prepare", "search", "other"},
}
UNITS = {"extract": "frames/s of a process", "loader": "videos/s", "step": "videos/s", "export": "clips/s", "retrieval": "queries/s"}


def settings(**sections: dict[str, Any]) -> PretrainConfig:
    return validated(PretrainConfig, {name: TINY.get(name, {}) | sections.get(name, {}) for name in TINY.keys() | sections.keys()})


def request_of(work_dir: Path, **how: Any) -> Request:
    config = how.pop("config", settings())
    export = ExportConfig(clips=2, batch_size=4, workers=config.run.workers)
    return Request(**{"work_dir": work_dir, "config": config, "export": export, "steps": 2} | how)


def refusal(what: str, request: Request, *words: str) -> str:
    with pytest.raises(InputError) as caught:
        bench(what, request)
    return refused(caught.value, *words)


def files_in(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(autouse=True)
def small_and_tidy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Small problems where the size is ours to choose, and nothing left where temporary files go."""
    monkeypatch.setattr(convolutions, "_SHAPES", ((8, 2, 8),))
    monkeypatch.setattr(convolutions, "_TIMED_S", 0.01)
    for name, size in (("_UCF101_QUERIES", 30), ("_UCF101_GALLERY", 70), ("_CHANNELS", 8)):
        monkeypatch.setattr(retrieval, name, size)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    yield
    assert not [path for path in temporary.iterdir() if not path.name.startswith("torchinductor")]  # torch's own, of any optimiser


@pytest.fixture
def work_dir(extracted: Manifest) -> Iterator[Path]:
    """A work directory with an extraction, which must stay as it is."""
    folder = extracted.folder.parent
    before = files_in(folder)
    yield folder
    assert files_in(folder) == before


@pytest.mark.parametrize("what", WHATS)
def test_every_measurement_gives_rate_parts_memory_and_verdict(what: str, work_dir: Path) -> None:
    found = bench(what, request_of(work_dir))
    assert list(found) == ["machine", "measured", "left_out", "trace"]
    assert list(found["measured"]) == [what]
    assert (found["left_out"], found["trace"]) == ({}, None)
    one = json.loads(json.dumps(found["measured"][what], allow_nan=False))
    assert list(one) == ["setup", "rate", "parts", "figures", "memory", "verdict"]
    rate = one["rate"]
    assert (rate["unit"], rate["repeats"]) == (UNITS[what], 2)
    assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    assert sum(one["parts"].values()) == pytest.approx(1)
    assert PARTS[what] <= one["parts"].keys() <= set(get_args(Part))
    assert all(share > 0 for part, share in one["parts"].items() if part in PARTS[what])
    assert all(peak is None or peak > 2**20 for whose, peak in one["memory"].items() if whose != "of_the_search")
    one_sentence(RspnetError(one["verdict"]))


@pytest.mark.parametrize("computes", [True, False])
def test_shares_of_the_best_rate_and_of_the_bare_forward_pass_are_told(
    work_dir: Path, monkeypatch: pytest.MonkeyPatch, computes: bool
) -> None:
    monkeypatch.setattr(step, "computes_bf16", lambda _: computes)
    found = bench("step", request_of(work_dir))["measured"]["step"]
    figures, rate = found["figures"], found["rate"]["median"]
    done = figures["convolutions"]
    assert figures["step_s"] == pytest.approx(4 / rate)
    assert figures["clips_per_s"] == pytest.approx(2 * rate)
    assert done["flop_per_s"] == pytest.approx(done["flop_per_video"] * rate)
    assert done["share_of_best"] == pytest.approx(done["flop_per_s"] / done["best_flop_per_s"])
    assert done["share_of_best_in_passes"] == pytest.approx(done["share_of_best"] / figures["in_passes"])
    assert (done.get("best_flop_per_s_bf16", 0) > 0) == computes
    reading = ("loader wait", "open", "decode", "convert", "crop")
    assert figures["data_wait"] == pytest.approx(sum(found["parts"][part] for part in reading))  # no workers: the step reads itself
    export = bench("export", request_of(work_dir))["measured"]["export"]
    assert export["setup"]["encoder"].startswith("untrained")
    assert export["setup"]["backbone"] == "r3d18"
    assert export["figures"]["bare_clips_per_s"] > 0
    assert export["figures"]["videos_per_s"] == pytest.approx(export["rate"]["median"] / 2)


def test_the_steps_are_those_of_pretrain(extracted: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (pretrain(settings(), frames=extracted.folder, out=tmp_path / "pretrain").folder / "metrics.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    taken: list[float] = []
    real = step.take_step

    def spy(*how: Any, **more: Any) -> torch.Tensor:
        figures = real(*how, **more)
        taken.append(float(figures[0]))
        return figures

    monkeypatch.setattr(step, "take_step", spy)
    bench("step", request_of(extracted.folder.parent))
    assert taken[:2] == pytest.approx(losses[:2], rel=1e-6)  # an epoch; the rate of the next one is another
    assert len(taken) == 3 + 2  # warm-up


def test_workers_read_and_their_memory_is_told(work_dir: Path) -> None:
    found = bench("loader", request_of(work_dir, config=settings(run={"workers": 2})))["measured"]["loader"]
    assert found["setup"]["workers"] == 2
    assert found["figures"]["workers_worth"] > 0
    assert found["memory"]["largest_worker"] is None or found["memory"]["largest_worker"] > 2**20


def test_what_the_work_directory_holds_is_measured(tmp_path: Path) -> None:
    frames = make_extract(tmp_path / "work" / "extract")
    make_pretrain(tmp_path / "work" / "pretrain", inputs={"extract": frames.path}, settings=SMALL)
    found = bench("export", request_of(tmp_path / "work"))["measured"]["export"]
    assert (found["setup"]["encoder"], found["setup"]["clip"]) == ("pretrain", "4x24x24")
    assert bench("retrieval", request_of(tmp_path / "work"))["measured"]["retrieval"]["setup"]["features"].startswith("random")


def test_sources_are_named_or_those_of_the_extraction(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", (9, 8))
    found = bench("extract", request_of(tmp_path / "none", videos=videos))["measured"]["extract"]
    assert (found["setup"]["videos"], found["setup"]["short_side"], found["figures"]["failed"]) == (2, 128, 0)
    stored = make_extract(tmp_path / "work" / "extract", num_frames=(9, 8, 9), codec="raw").results
    found = bench("extract", request_of(tmp_path / "work"))["measured"]["extract"]
    assert (found["setup"]["videos"], found["setup"]["codec"], found["setup"]["short_side"]) == (3, "raw", 32)
    assert found["setup"]["frames_per_video"] in (8, 9)
    assert found["figures"]["bytes_per_frame"] == pytest.approx(stored["bytes"] / stored["frames"], rel=0.05)  # of two of the three
    for video in (tmp_path / "work" / "extract-sources").iterdir():
        video.unlink()
    (tmp_path / "work" / "extract-sources").rmdir()
    refusal("extract", request_of(tmp_path / "work"), "extract-sources", "--videos")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "v.mp4").write_bytes(b"no video at all" * 100)
    refusal("extract", request_of(tmp_path / "work", videos=tmp_path / "empty"), "None of 1 videos", "--videos")


def test_all_leaves_out_what_cannot_be_measured_and_says_why(work_dir: Path, tmp_path: Path) -> None:
    found = bench("all", request_of(work_dir, config=settings(optim={"batch_size": 16}, moco={"queue_size": 16})))
    assert list(found["measured"]) == ["extract", "export", "retrieval"]
    assert list(found["left_out"]) == ["loader", "step"]
    assert all("--batch-size 10" in why for why in found["left_out"].values())
    videos = make_videos(tmp_path / "videos", (9, 8))
    found = bench("all", request_of(tmp_path / "none", videos=videos))
    assert list(found["measured"]) == ["extract", "retrieval"]
    assert all("rspnet extract" in why for why in found["left_out"].values())


@pytest.mark.parametrize("what", TRACED)
def test_a_trace_names_the_parts(what: str, work_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    assert bench(what, request_of(work_dir, trace=path))["trace"] == str(path)
    events = json.loads(path.read_text())["traceEvents"]
    named = {event["name"] for event in events if event.get("cat") == "user_annotation"}
    assert PARTS[what] - {"hash", "write"} <= named


def test_a_trace_of_all_is_the_steps(work_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHATS", ("step", "retrieval"))
    bench("all", request_of(work_dir, trace=tmp_path / "trace.json"))
    assert "backward" in {event["name"] for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}


def test_what_cannot_be_done_is_refused(work_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = request_of(tmp_path / "none")
    for what in ("all", "loader", "step", "export", "extract"):
        refusal(what, nothing, str(tmp_path / "none"))
    refusal("all", nothing, "rspnet extract VIDEOS", "--work-dir", "--videos")
    assert not (tmp_path / "none").exists()
    refusal("steps", nothing, "steps", "extract, loader, step, export, retrieval")
    (tmp_path / "old.json").write_text("mine")
    refusal("step", request_of(work_dir, trace=tmp_path / "old.json"), "old.json", "--trace")
    refusal("step", request_of(work_dir, trace=tmp_path / "no" / "new.json"), "new.json", "--trace")
    refusal("extract", request_of(work_dir, trace=tmp_path / "new.json"), "--trace", "loader")
    assert (tmp_path / "old.json").read_text() == "mine"
    monkeypatch.setenv("WORLD_SIZE", "2")
    refusal("step", request_of(work_dir), "torchrun")


@pytest.mark.parametrize("what", WHATS)
def test_a_signal_leaves_nothing(what: str, work_dir: Path) -> None:
    class Interrupted(Reporter):
        def track(self, items: Any, **how: Any) -> Iterator[Any]:
            for item in items:
                yield item
                raise Stopped(2)

    config = settings(run={"workers": 1})
    with pytest.raises(Stopped):
        bench(what, request_of(work_dir, config=config, steps=4, report=Interrupted("silent")))
    assert not [child for child in _children() if child != "resource_tracker"]


def _children() -> list[str]:
    """What this process' living children run."""
    names = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, name, state, parent = re.match(r"(\d+) \((.*)\) (\S) (\d+)", path.read_text()).groups()  # type: ignore[union-attr]
            command = (path.parent / "cmdline").read_text()
            if int(parent) == os.getpid() and state != "Z":
                names.append("resource_tracker" if "resource_tracker" in command else f"{pid} {name}")
    return names


@pytest.mark.parametrize("backbone", ["r3d18", "c3d", "tsm-r18"])
def test_convolutions_are_counted_as_torch_counts_them(backbone: str) -> None:
    encoder = Encoder(backbone, width=0.1, head="conv")
    clips = torch.randn(2, 3, 16, 32, 32)
    with FlopCounterMode(display=False) as counter:
        appearance, motion = encoder.project(clips)
        (appearance.sum() + motion.sum()).backward()
        with torch.no_grad():
            for _ in range(2):
                encoder.project(clips)
    counts = {str(operation): number for operation, number in counter.get_flop_counts()["Global"].items()}
    assert set(counts) >= {"aten.convolution", "aten.convolution_backward"}
    expected = sum(number for name, number in counts.items() if "convolution" in name)
    assert convolutions.flops_per_video(encoder, frames=16, size=32) * 2 == pytest.approx(expected, rel=1e-9)


def test_rates_are_of_bursts_where_batches_come_in_bursts() -> None:
    laps = [0.0001, 0.0001, 2.9998] * 6
    rate = Rate.of_laps([10] * 18, laps, "videos/s", bursts=3)
    assert (rate.median, rate.low, rate.high, rate.repeats) == (pytest.approx(10), pytest.approx(10), pytest.approx(10), 6)
    few = Rate.of_laps([10] * 4, [1.0, 2.0, 1.0, 2.0], "videos/s", bursts=3)
    assert (few.repeats, few.low, few.high) == (4, 5, 10)


def test_a_measurement_lasts_as_long_as_it_was_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(measured.time, "perf_counter", lambda: now[0])

    def count(steps: int | None, lap_s: float, **how: Any) -> int:
        number = 0
        for _ in repeats(steps, **how):
            now[0] += lap_s
            number += 1
        return number

    assert count(3, 1000) == 3
    assert count(None, 1) == 20
    assert count(None, 0.1) == pytest.approx(200, abs=2)
    assert count(None, 10) == 5
    assert count(None, 100) == 2  # no more is begun after 120 s
    assert count(None, 100, most_s=math.inf) == 5


def test_shares_are_in_the_order_of_the_work() -> None:
    found = shares({"other": 1.0, "backward": 2.0, "loader wait": 1.0})
    assert list(found.items()) == [("loader wait", 0.25), ("backward", 0.5), ("other", 0.25)]


def test_the_clock_of_a_gpu_asks_for_events_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = now[0]

        def elapsed_time(self, other: Event) -> float:
            return (other.at - self.at) * 1000

    synchronised: list[int] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: synchronised.append(1))
    watch = clock.GpuClock()
    with listening(watch):
        for _ in range(2):
            watch.mark()
            with timed("other"):
                now[0] += 1
                with timed("objective"):
                    now[0] += 2
                    with timed("query forward"):
                        now[0] += 4
            watch.mark()
    assert not synchronised
    assert watch.parts_s() == {"query forward": 8, "objective": 4, "other": 2}
    assert watch.laps_s() == [7, 0, 7]


@pytest.mark.gpu
def test_a_gpu_is_measured(cuda: torch.device, work_dir: Path) -> None:
    for what in ("step", "export"):
        found = bench(what, request_of(work_dir, config=settings(run={"device": "cuda"}), device="cuda"))["measured"][what]
        assert sum(found["parts"].values()) == pytest.approx(1)
        assert found["rate"]["median"] > 0
    assert bench("step", request_of(work_dir, config=settings(run={"device": "cuda"})))["measured"]["step"]["memory"]["gpu"] > 0


def test_bfloat16_that_is_emulated_is_warned_of_once_and_has_no_best_rate_that_takes_minutes(
    work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in (step, export_module, devices):
        monkeypatch.setattr(where, "computes_bf16", lambda _: False)
    listener = Listener()
    request = request_of(work_dir, config=settings(run={"precision": "bf16"}), report=listener)
    request = replace(request, export=request.export.model_copy(update={"precision": "bf16"}))
    found = bench("all", request)["measured"]
    assert len([said for said in listener.said if "no instructions for bfloat16" in said]) == 1
    assert found["step"]["figures"]["convolutions"].keys() == {"flop_per_video", "flop_per_s"}
    passes: dict[Part, float] = {"key forwards": 0.3, "query forward": 0.2, "backward": 0.4, "other": 0.1}
    advice = "--precision fp32 would be faster."
    assert step._verdict(step.open_training_clips(request), passes, found["step"]["figures"]["convolutions"]).endswith(advice)
    assert export_module._verdict(request.export, torch.device("cpu"), "raw", {"forward": 1.0}, 0.9).endswith(advice)


def _verdicts(work_dir: Path) -> Iterator[tuple[str, str]]:
    """(what it begins with, verdict) for made-up shares."""
    training = step.open_training_clips(request_of(work_dir))
    rates = {"best_flop_per_s": 1.0, "share_of_best_in_passes": 0.7}
    passes: dict[Part, float] = {"key forwards": 0.3, "query forward": 0.2, "backward": 0.4, "other": 0.1}
    yield "The loader limits: the step waits 43 %", step._verdict(training, {"loader wait": 0.43, "backward": 0.57}, rates)
    yield "The loader limits", step._verdict(training, {"decode": 0.4, "loader wait": 0.1, "backward": 0.5}, rates)
    yield "The CPU limits: 90 % of the step", step._verdict(training, passes, rates | {"best_flop_per_s_bf16": 2.0})
    yield "The CPU limits", step._verdict(training, passes, rates)
    for part in ("augmentation", "objective", "optimizer"):
        start = f"Not loader or convolutions limit but {part} (60 % of the step)"
        yield start, step._verdict(training, {part: 0.6, "backward": 0.4}, rates)
    for disk_bytes, start in ((9, "The disk limits: reading waits 80 %"), (0, "Decoding limits (60 % of a worker's time)")):
        own = loader._InProcess(Rate("", 1, 1, 1, 1), {"decode": 0.6, "crop": 0.4}, 4, Usage(10, 2, 0.0, 10, disk_bytes))
        yield start, loader._verdict(training, own)
    run = extract._Run(1)
    run.efforts = [extract.Effort(Usage(10, 9, 0.0, 0, 0), {}, None)]
    config = extract.ExtractConfig()
    for largest, workers, worth, start in (
        ("decode", 1, 1.0, "Decoding the sources limits (60 %"),
        ("encode", 1024, 1000.0, "Encoding limits (60 %"),
        ("encode", 1024, 3.0, "Encoding limits (60 % of a process' time); 1024 processes do the work of 3.0"),
        ("hash", 1024, 1000.0, "Hashing limits"),
        ("write", 1, 1.0, "The disk limits"),
    ):
        yield start, extract._verdict(config, run, {largest: 0.6, "other": 0.4}, workers=workers, worth=worth)
    run.efforts = [extract.Effort(Usage(10, 2, 0.0, 10, 10), {}, None)]
    yield "The disk limits: a process waits 80 %", extract._verdict(config, run, {"decode": 1.0}, workers=1, worth=1.0)
    of_export = export_module._verdict
    device = torch.device("cpu")
    yield "The loader limits", of_export(ExportConfig(workers=0), device, "raw", {"loader wait": 0.5, "forward": 0.5}, 0.5)
    yield "The CPU limits", of_export(ExportConfig(), device, "raw", {"forward": 1.0}, 0.95)
    yield "Not the encoder limits but preprocess", of_export(ExportConfig(), device, "raw", {"preprocess": 0.6, "forward": 0.4}, 0.4)
    yield "The CPU limits: the search reaches 47 %", retrieval._verdict(0.47, "cpu")
    yield "It runs on cuda:0", retrieval._verdict(12.3, "cuda:0")


def test_verdicts_are_sentences_whose_flags_exist(work_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rspnet_cli.cli.main import main

    helps = ""
    for command in ("bench", "extract", "export-features"):
        assert main([command, "--help"]) == 0
        helps += capsys.readouterr().out
    for start, verdict in _verdicts(work_dir):
        assert verdict.startswith(start)
        one_sentence(RspnetError(verdict))
        flags = re.findall(r"--[a-z-]+", verdict)
        assert flags or "no flag" in verdict or "VIDEOS" in verdict, verdict
        assert all(re.search(rf"{flag}\b", helps) for flag in flags), verdict


def test_a_full_gpu_is_one_sentence(work_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Callable[[], None]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step, "_steps", full)
    with pytest.raises(RspnetError) as caught:
        bench("step", request_of(work_dir))
    one_sentence(caught.value, "--batch-size", "memory is full")
