"""Every letter that ids, labels and figures are made of is drawn, stands apart from the next, and is no other's picture."""

import string

import numpy as np

from rspnet_cli.pictures.font import ADVANCE, LINE, text_mask

LETTERS = string.ascii_letters + string.digits + "._-+/:;,()%'<>=[]|#*&@!?~"


def test_all_letters_differ_and_none_is_the_box() -> None:
    drawn = [text_mask(letter).tobytes() for letter in LETTERS + "\ufffd"]
    assert len(set(drawn)) == len(LETTERS) + 1
    assert all(np.frombuffer(letter, bool).any() for letter in drawn)


def test_letters_do_not_touch() -> None:
    assert not any(text_mask(letter)[:, ADVANCE - 1].any() for letter in LETTERS)


def test_capitals_stand_on_the_base_line_and_five_letters_reach_below_it() -> None:
    assert not any(text_mask(letter)[7:].any() for letter in string.ascii_uppercase + string.digits)
    below = {letter for letter in string.ascii_lowercase if text_mask(letter)[7:].any()}
    assert below == set("gjpqy")


def test_a_line_is_its_letters_one_after_the_other_at_any_scale() -> None:
    line = text_mask("Kick 07", scale=3)
    assert line.shape == (3 * LINE, 3 * ADVANCE * 7)
    for place, letter in enumerate("Kick 07"):
        own = line[:, 3 * ADVANCE * place : 3 * ADVANCE * (place + 1)]
        assert (own[::3, ::3] == text_mask(letter)).all()
        assert (own == own[::3, ::3].repeat(3, 0).repeat(3, 1)).all()
    assert not text_mask(" ").any()
    assert text_mask("").shape == (LINE, 0)


def test_what_the_font_lacks_is_a_box() -> None:
    assert (text_mask("日") == text_mask("\ufffd")).all()
    assert (text_mask("\n") == text_mask("\ufffd")).all()
