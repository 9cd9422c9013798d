import math
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.config import ExtractConfig
from rspnet_cli.progress import Reporter
from rspnet_cli.settings import validated
from rspnet_cli.stages.extract import extract
from rspnet_cli.videos import probe as module
from rspnet_cli.videos.extraction import resolved
from rspnet_cli.videos.listing import VideoSource
from rspnet_cli.videos.probe import Estimate, probe, size_of, spread, total_of
from rspnet_cli.videos.sources import find_videos
from tests.encode import make_frames, make_video, not_a_video
from tests.layouts import write_lists


def video(size: int, name: str = "a.mp4") -> VideoSource:
    return VideoSource(id=name, path=name, bytes=size, mtime_ns=0, label=None, label_name="", group="", splits=())


def estimate_of(root: Path, folder: Path, **settings: object) -> Estimate:
    folder.mkdir()
    lists = root.parent / "lists"
    table = find_videos(root, annotations=lists if lists.exists() else None)
    config = resolved(validated(ExtractConfig, {"short_side": 32, "workers": 1} | settings), table)
    return probe(table, config, root=root, folder=folder, report=Reporter.silent())


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300), st.integers(1, 40))
def test_the_probed_videos_are_different_ones_and_lie_evenly_over_the_sizes(sizes: list[int], number: int) -> None:
    videos = [video(size, f"{index}.mp4") for index, size in enumerate(sizes)]
    chosen = spread(videos, number)
    assert len({item.path for item in chosen}) == len(chosen)
    assert len(chosen) >= min(len(videos), number) * 0.6  # places of many may round to one, where there are few more videos than places
    if len(videos) <= number:
        assert {item.path for item in chosen} == {item.path for item in videos}


@pytest.mark.parametrize("taken", [4, 8, 16])
def test_so_do_the_first_of_them(taken: int) -> None:
    places = sorted(item.bytes for item in spread([video(place + 1, f"{place}.mp4") for place in range(10_000)], 16)[:taken])
    gaps = [after - before for before, after in zip([0, *places], [*places, 10_000], strict=True)]
    assert max(gaps) < 2.7 * 10_000 / (taken + 1)


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1e6)), min_size=3, max_size=20),
    st.integers(1, 1000),
)
def test_the_range_is_two_standard_errors_of_a_ratio(measured: list[tuple[int, float]], more: int) -> None:
    sizes, values = [size for size, _ in measured], [value for _, value in measured]
    count, whole = len(sizes) + more, sum(sizes) * 3
    total = total_of(sizes, values, whole, count)
    ratio = statistics.fmean(values) / statistics.fmean(sizes)
    residuals = [value - ratio * size for size, value in measured]
    # The residuals of a ratio sum to zero, so their sample variance is that of the estimator.
    error = count * math.sqrt((count - len(sizes)) / count) * statistics.stdev(residuals) / math.sqrt(len(sizes))
    assert total.value == pytest.approx(ratio * whole)
    assert total.low is not None
    assert total.high is not None
    assert total.high == pytest.approx(ratio * whole + 2 * error, rel=1e-6, abs=1e-3)
    assert total.low == pytest.approx(max(ratio * whole - 2 * error, sum(values)), rel=1e-6, abs=1e-3)


def test_of_all_videos_the_sum_is_known_and_of_two_there_is_no_range() -> None:
    assert total_of([1, 2], [5.0, 7.0], 3, 2) == module.Total(12.0, 12.0, 12.0)
    assert total_of([1, 3], [2.0, 6.0], 40, 20) == module.Total(80.0, None, None)


def test_a_video_in_proportion_to_its_size_has_no_range() -> None:
    total = total_of([1, 2, 4], [10.0, 20.0, 40.0], 100, 30)
    assert (total.value, total.low, total.high) == (1000.0, pytest.approx(1000.0), pytest.approx(1000.0))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten videos of different lengths and one that is none. Not to be written to."""
    root = tmp_path_factory.mktemp("probe") / "videos"
    for number in range(10):
        make_video(root / f"v{number}.avi", 10 + 7 * number, "mjpeg", start=30 * number)
    not_a_video(root / "noise.avi")
    return root


def test_a_probe_of_all_videos_is_what_extract_then_stores(videos: Path, tmp_path: Path) -> None:
    estimate = estimate_of(videos, tmp_path / "probe")
    manifest = extract(validated(ExtractConfig, {"short_side": 32, "workers": 1}), videos=videos, out=tmp_path / "extract")
    assert estimate.bytes is not None
    assert (estimate.bytes.value, estimate.bytes.low, estimate.bytes.high) == (manifest.results["bytes"],) * 3
    assert (estimate.probed, estimate.workers, list(estimate.failures)) == (11, 1, ["noise.avi"])
    assert estimate.seconds is not None
    assert estimate.seconds.value > 0


def test_a_probe_of_some_comes_near(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = estimate_of(videos, tmp_path / "whole")
    monkeypatch.setattr(module, "PROBED_VIDEOS", 6)
    estimate = estimate_of(videos, tmp_path / "probe")
    assert estimate.probed == 6
    assert whole.bytes is not None
    assert estimate.bytes is not None
    assert estimate.bytes.low is not None
    assert estimate.bytes.high is not None
    assert estimate.bytes.low <= whole.bytes.value <= estimate.bytes.high
    assert estimate.bytes.value == pytest.approx(whole.bytes.value, rel=0.3)


def test_it_ends_after_its_time_with_a_video_for_every_worker(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_S", 0.0)
    estimate = estimate_of(videos, tmp_path / "probe", workers=2)
    assert (estimate.probed, estimate.workers) == (2, 2)


def test_nothing_is_estimated_from_failures_alone(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    not_a_video(tmp_path / "videos/a.mp4")
    estimate = estimate_of(tmp_path / "videos", tmp_path / "probe")
    assert (estimate.bytes, estimate.seconds, estimate.probed) == (None, None, 1)
    assert "a.mp4" in estimate.failures


def test_folders_of_frames_count_by_their_frames(tmp_path: Path) -> None:
    root = tmp_path / "rawframes"
    for number in range(3):
        make_frames(root / f"v{number}", 6 + 2 * number)
    write_lists(tmp_path / "lists", {"train.txt": [f"v{number} {6 + 2 * number} 0" for number in range(3)]})
    table = find_videos(root, annotations=tmp_path / "lists")
    assert [size_of(item) for item in table.videos] == [6, 8, 10]
    estimate = estimate_of(root, tmp_path / "probe", codec="jpeg")
    assert estimate.failures == {}
    assert estimate.bytes is not None
    assert estimate.bytes.value > 0
