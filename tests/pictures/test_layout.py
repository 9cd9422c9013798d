"""Pictures stand where they are put, pixel for pixel."""

import numpy as np

from rspnet_cli.pictures.font import ADVANCE, LINE, text_mask
from rspnet_cli.pictures.layout import PAPER, below, beside, fitted, framed, text


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_beside_and_below_keep_the_pictures_and_fill_with_paper() -> None:
    one, two = noise(5, 3), noise(2, 4)
    row = beside([one, two], gap=6)
    assert row.shape == (5, 13, 3)
    assert (row[:, :3] == one).all()
    assert (row[:2, 9:] == two).all()
    assert (row[:, 3:9] == PAPER).all()
    assert (row[2:, 9:] == PAPER).all()
    column = below([one, two], gap=6)
    assert (column == beside([one.swapaxes(0, 1), two.swapaxes(0, 1)], gap=6).swapaxes(0, 1)).all()


def test_a_frame_makes_both_sides_even() -> None:
    for shape in ((5, 3), (4, 6), (1, 2)):
        picture = noise(*shape)
        canvas = framed(picture, margin=3)
        assert canvas.shape[0] % 2 == canvas.shape[1] % 2 == 0
        assert (canvas[3 : 3 + shape[0], 3 : 3 + shape[1]] == picture).all()
        assert (canvas[:3] == PAPER).all()
        assert (canvas[3 + shape[0] :] == PAPER).all()


def test_small_pictures_are_enlarged_by_whole_pixels_and_large_ones_shrunk() -> None:
    small = noise(12, 12)
    assert (fitted(small, 50) == small.repeat(4, 0).repeat(4, 1)).all()
    assert (fitted(small, 12) == small).all()
    large = np.full((200, 200, 3), (10, 120, 250), np.uint8)
    large[:, 100:] = (250, 40, 0)
    shrunk = fitted(large, 50)
    assert shrunk.shape == (50, 50, 3)
    assert np.abs(shrunk[:, :20].astype(int) - large[0, 0]).max() <= 2
    assert np.abs(shrunk[:, 30:].astype(int) - large[0, 199]).max() <= 2


def test_text_has_its_colour_on_paper_and_is_cut_where_it_would_not_fit() -> None:
    drawn = text("Ab", colour=(1, 2, 3), scale=2)
    mask = text_mask("Ab", 2)
    assert (drawn[mask] == (1, 2, 3)).all()
    assert (drawn[~mask] == PAPER).all()
    width = 7 * ADVANCE
    assert (text("a long name", scale=1, width=width) == text("a lon..", scale=1)).all()
    assert text("a long name", scale=1, width=11 * ADVANCE).shape == (LINE, 11 * ADVANCE, 3)
