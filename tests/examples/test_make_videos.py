"""The demo's videos: what is promised about their files, lists and pictures."""

import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.demo_videos.encode import FORMATS, write_video
from examples.demo_videos.performance import GRAVITY, cycle, flight
from examples.demo_videos.plan import CLASSES, FPS, Video, plan_videos, render, split_lists

SCRIPT = Path(__file__).parents[2] / "examples" / "make_videos.py"


def make(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), "--out", str(out), *arguments], capture_output=True, text=True)


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def decoded(path: Path) -> tuple[int, float, int, int]:
    """Frames, frames a second, width and height."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        assert rate is not None
        return sum(1 for _ in container.decode(stream)), float(rate), stream.width, stream.height


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of five videos; not to be written to."""
    out = tmp_path_factory.mktemp("made") / "videos"
    done = make(out, "--classes", "Wave", "Jump", "--videos-per-class", "5", "--workers", "2")
    assert done.returncode == 0, done.stderr
    return out


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(made: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "again", "--classes", "Jump", "Wave", "--videos-per-class", "5", "--workers", "1").returncode == 0
    assert bytes_below(tmp_path / "again") == bytes_below(made)


def test_another_seed_gives_other_pictures() -> None:
    video = plan_videos(1, 0, ["Run"])[0]
    one, other = render(video, 0)[0], render(video, 1)[0]
    assert one.shape != other.shape or not np.array_equal(one, other)


def test_files_are_named_and_listed_as_in_ucf101(made: Path) -> None:
    names = sorted(str(path.relative_to(made / "UCF-101")) for path in (made / "UCF-101").rglob("*") if path.is_file())
    assert len(names) == 10
    assert all(re.fullmatch(r"(Jump|Wave)/v_\1_g0[12]_c0[1-4]\.(mp4|mov|avi|webm|mkv)", name) for name in names)
    lists = made / "ucfTrainTestlist"
    assert (lists / "classInd.txt").read_text() == "1 Jump\n2 Wave\n"
    train = [line.split() for line in (lists / "trainlist01.txt").read_text().splitlines()]
    test = (lists / "testlist01.txt").read_text().splitlines()
    assert sorted([path for path, _ in train] + test) == names
    assert all(label == {"Jump": "1", "Wave": "2"}[path.split("/")[0]] for path, label in train)


def test_a_second_run_makes_only_what_is_missing(tmp_path: Path) -> None:
    arguments = ("--classes", "Clap", "--videos-per-class", "5", "--workers", "1")
    assert make(tmp_path, *arguments).returncode == 0
    before = bytes_below(tmp_path)
    videos = sorted((tmp_path / "UCF-101" / "Clap").iterdir())
    times = {path: path.stat().st_mtime_ns for path in videos}
    videos[2].unlink()
    done = make(tmp_path, *arguments)
    assert "(1 made now" in done.stdout
    assert bytes_below(tmp_path) == before
    assert [path for path in videos if path.stat().st_mtime_ns != times[path]] == [videos[2]]


def test_videos_of_other_settings_are_not_mixed_in(made: Path) -> None:
    before = bytes_below(made)
    done = make(made, "--classes", "Jump", "Wave", "--videos-per-class", "5", "--seed", "1")
    assert done.returncode == 1
    assert "other settings" in done.stderr
    assert bytes_below(made) == before


def test_one_group_is_refused(tmp_path: Path) -> None:
    done = make(tmp_path / "videos", "--videos-per-class", "4")
    assert done.returncode == 2
    assert "at least 5" in done.stderr
    assert not (tmp_path / "videos").exists()


@pytest.mark.parametrize("videos_per_class", [5, 24, 60])
def test_no_group_is_on_both_sides_of_a_split(videos_per_class: int) -> None:
    videos = plan_videos(videos_per_class, 0)
    lists = split_lists(videos)
    tested: set[str] = set()
    for split in range(1, 1 + sum(name.startswith("testlist") for name in lists)):
        train = [line.split()[0] for line in lists[f"trainlist0{split}.txt"].splitlines()]
        test = lists[f"testlist0{split}.txt"].splitlines()
        assert sorted(train + test) == sorted(video.path for video in videos)
        groups = {side: {path.rsplit("_c", 1)[0] for path in paths} for side, paths in (("train", train), ("test", test))}
        assert not groups["train"] & groups["test"]
        assert {path.split("/")[0] for path in test} == {path.split("/")[0] for path in train} == set(CLASSES)
        assert not groups["test"] & tested
        tested |= groups["test"]


def test_three_splits_of_44_and_16_videos_by_default() -> None:
    lists = split_lists(plan_videos(60, 0))
    assert sorted(lists) == ["classInd.txt", *(f"{side}list0{split}.txt" for side in ("test", "train") for split in (1, 2, 3))]
    assert {name: len(text.splitlines()) for name, text in lists.items() if name.startswith("t")} == {
        f"{side}list0{split}.txt": 15 * number for side, number in (("train", 44), ("test", 16)) for split in (1, 2, 3)
    }


def test_a_video_does_not_depend_on_how_many_are_made() -> None:
    assert set(plan_videos(5, 7, ["Walk"])) <= set(plan_videos(60, 7))


@pytest.mark.parametrize("number", range(len(FORMATS)), ids=lambda number: f"{FORMATS[number].codec}-{FORMATS[number].extension}")
def test_every_format_decodes_to_the_frames_that_were_drawn(number: int, tmp_path: Path) -> None:
    video = Video("Kick", 1, 1, FORMATS[number])
    frames, _ = render(video, 0)
    write_video(tmp_path / video.path.rsplit("/")[-1], frames, file_format=video.file_format, fps=FPS)
    (path,) = tmp_path.iterdir()
    assert decoded(path) == (len(frames), 25.0, video.file_format.width, video.file_format.height)
    assert 2.5 <= len(frames) / FPS <= 3.2
    with av.open(str(path)) as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    # Lossy, with colours at half resolution: close on average, frame by frame.
    error = np.abs(shown.astype(int) - frames[..., :3].astype(int)).mean((1, 2, 3))
    assert error.max() < 8


def test_every_format_and_an_odd_size_occur_in_the_default_set() -> None:
    used = {video.file_format.codec + video.file_format.extension for video in plan_videos(60, 0)}
    assert used == {each.codec + each.extension for each in FORMATS}
    assert any(each.width % 2 and each.height % 2 for each in FORMATS)


@pytest.fixture(scope="module")
def figures() -> dict[str, np.ndarray]:
    """For one video of every class: where the figure (or its shadow) is, (F, H, W) bool."""
    masks = {}
    for action in CLASSES:
        frames, empty = render(Video(action, 3, 2, FORMATS[0]), 0)
        masks[action] = (np.abs(frames[..., :3].astype(int) - empty) > 24).any(-1)
    return masks


def test_figures_fill_the_frame(figures: dict[str, np.ndarray]) -> None:
    tall = {}
    for action, mask in figures.items():
        rows = mask.any(2)  # (F, H)
        tall[action] = float(np.quantile(rows.sum(1) / rows.shape[1], 0.9))
    assert 0.7 <= np.median(list(tall.values())) <= 0.92, tall
    assert min(tall.values()) > 0.4, tall


def test_every_figure_moves(figures: dict[str, np.ndarray]) -> None:
    moved = {action: float((mask[4:] != mask[:-4]).mean() / mask.mean()) for action, mask in figures.items()}
    assert min(moved.values()) > 0.04, moved


def test_cameras_are_still(figures: dict[str, np.ndarray]) -> None:
    frames, empty = render(Video("Walk", 1, 1, FORMATS[1]), 0)
    never = (frames[..., :3] == empty).all((0, 3))  # pixels that neither figure nor shadow ever touch
    assert never.mean() > 0.4
    assert never[:, :8].mean() > 0.9


def test_colours_and_places_do_not_tell_the_class_alone() -> None:
    """Groups of a class differ in scene and clothes; scenes are shared between classes."""
    from examples.demo_videos.plan import cast_of, favourite_scenes

    videos = [video for video in plan_videos(60, 0) if video.clip == 1]
    casts = {video: cast_of(video, 0) for video in videos}
    scenes = {action: {id(casts[video].scene) for video in videos if video.action == action} for action in CLASSES}
    assert min(len(each) for each in scenes.values()) >= 4
    pairs = favourite_scenes(0)
    owners = [scene for pair in pairs.values() for scene in pair]
    assert {owners.count(scene) for scene in set(owners)} == {2, 3}
    assert len(set(owners)) == 12


@given(
    keys=st.lists(st.tuples(st.integers(0, 99), st.floats(-100, 100)), min_size=2, max_size=8, unique_by=lambda key: key[0]),
    phase=st.lists(st.floats(-5, 5), min_size=1, max_size=20),
)
def test_a_cycle_meets_its_keys_and_never_leaves_their_range(keys: list[tuple[int, float]], phase: list[float]) -> None:
    points = [(at / 100, value) for at, value in sorted(keys)]
    values = cycle(np.array(phase), *points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    assert ((values >= low - 1e-9) & (values <= high + 1e-9)).all()
    at_keys = cycle(np.array([at for at, _ in points]) + 3, *points)
    assert np.allclose(at_keys, [value for _, value in points], atol=1e-6)


def test_flight_falls_as_gravity_pulls() -> None:
    period_s, start, stop = 1.25, 0.3, 0.7
    time_s = np.arange(0.4, 0.85, 0.001)  # inside the flight
    height = flight(time_s / period_s, start, stop, period_s)
    assert height.min() > 0
    assert np.allclose(np.diff(height, 2) / 0.001**2, -GRAVITY, atol=1e-3)
