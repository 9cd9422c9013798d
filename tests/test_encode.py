"""The tests' own pictures say what they should, or the tests built on them prove nothing."""

from contextlib import suppress

import numpy as np
import pytest

from tests.encode import MAX_NUMBER, numbered_frame, read_number


@pytest.mark.parametrize("number", [0, 1, 2, 1000, MAX_NUMBER])
@pytest.mark.parametrize("size", [(16, 16), (64, 48), (47, 31), (33, 120)])
def test_a_picture_says_its_number(number: int, size: tuple[int, int]) -> None:
    assert read_number(numbered_frame(number, *size)) == number


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_picture_never_says_the_right_number(turns: int) -> None:
    for number in range(200):
        with suppress(ValueError):  # most often it says none
            assert read_number(np.rot90(numbered_frame(number, 64, 48), turns)) != number


def test_a_blend_of_two_pictures_is_no_number() -> None:
    blend = (numbered_frame(6, 64, 48) // 2 + numbered_frame(9, 64, 48) // 2).astype(np.uint8)
    with pytest.raises(ValueError, match="neither black nor white"):
        read_number(blend)
