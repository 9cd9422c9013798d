"""The colour baseline: right counts from really encoded videos, in a form that both evaluations take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.colour_histogram import colour_histogram, export_colours
from rspnet_cli.cli.main import main
from rspnet_cli.evaluation.features_file import read_features
from rspnet_cli.manifest import Manifest, read_manifest
from tests.extracted import make_extract


def test_a_histogram_is_the_share_of_every_colour_counted_pixel_by_pixel() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    expected = np.zeros((2, 64))
    for frame in range(2):
        for row in range(5):
            for column in range(7):
                red, green, blue = (int(value) // 64 for value in frames[frame, row, column])
                expected[frame, red * 16 + green * 4 + blue] += 1 / 35
    np.testing.assert_allclose(colour_histogram(frames), expected, atol=1e-7)


def test_extremes_and_borders_fall_into_the_right_colours() -> None:
    frame = np.array([[[[0, 63, 64], [127, 128, 191], [192, 255, 255]]]], np.uint8)
    counts = colour_histogram(frame)[0]
    assert np.flatnonzero(counts).tolist() == [0 * 16 + 0 * 4 + 1, 1 * 16 + 2 * 4 + 2, 3 * 16 + 3 * 4 + 3]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Ten videos of two classes in five groups."""
    out = tmp_path_factory.mktemp("labelled") / "extract"
    return make_extract(out, num_frames=(9, 12, 9, 10, 12, 9, 9, 16, 11, 9), labelled=True)


def test_it_is_an_export_that_both_evaluations_take(labelled: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "export-features"
    manifest = export_colours(labelled.path, out, num_frames=3)
    assert manifest.results == {"videos": 10, "channels": 64, "clips": 3}
    table = read_features(read_manifest(out, stage="export-features").folder, with_clips=True)
    assert table.clip_features is not None
    np.testing.assert_allclose(table.features.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(table.clip_features.mean(axis=1), table.features, atol=1e-7)
    # The first frame begins at 0, the last one ends with the video.
    np.testing.assert_allclose(table.clip_times_s[:, 0, 0], 0)
    np.testing.assert_allclose(table.clip_times_s[:, -1, 1], table.videos["frames"] / table.videos["fps"])
    assert not table.videos["seen"].any()
    for command in ("eval-retrieval", "eval-classification"):
        assert main([command, str(out), "--out", str(tmp_path / command), "--quiet"]) == 0
    assert "leave-one-out" in capsys.readouterr().out


def test_a_second_run_finds_it_finished_and_another_frame_count_is_refused(labelled: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "export-features"
    first = export_colours(labelled.path, out, num_frames=2)
    assert export_colours(labelled.path, out, num_frames=2).created == first.created
    with pytest.raises(Exception, match=r"clips was 2, now 3"):
        export_colours(labelled.path, out, num_frames=3)
