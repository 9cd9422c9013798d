"""Every word from outside is text, whatever it holds, and what comes out is XML."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.report.html import Html, data_block, element, join, name, number, share, text

NASTY = st.text(st.one_of(st.sampled_from("<>&\"'`/\\\0\x1b\u202e\u2028\ud800\udc80\ufffe]]>-"), st.characters()))


@given(words=NASTY)
def test_any_words_stay_words_in_elements_and_attributes(words: str) -> None:
    made = element("p", name(words), " and ", words, title=words, data_v=words)
    tree = ElementTree.fromstring(made)
    assert [child.tag for child in tree.iter()] == ["p", "bdi"]
    assert list(tree.attrib) == ["title", "data-v"]
    # A parser takes any line end for \n, and in attributes any white space for a space.
    shown = "".join(tree.itertext()).replace("\r", "\n")
    assert shown.count("\n") == 2 * words.replace("\r\n", "\n").replace("\r", "\n").count("\n")
    made.encode("utf-8")


@given(words=NASTY)
def test_data_come_back_equal_and_cannot_end_their_element(words: str) -> None:
    block = data_block({"words": [words, words]}, class_="data")
    inside = block.removeprefix('<script type="application/json" class="data">').removesuffix("</script>")
    assert not set("<>&") & set(inside)
    assert json.loads(inside) == {"words": [words, words]}
    assert ElementTree.fromstring(block).tag == "script"


def test_markup_stays_markup_and_an_f_string_of_it_does_not() -> None:
    bold = element("b", "x")
    assert element("p", bold) == "<p><b>x</b></p>"
    assert element("p", f"{bold}!") == "<p>&lt;b&gt;x&lt;/b&gt;!</p>"
    assert join([bold, None, "<", 3], ", ") == "<b>x</b>, &lt;, 3"
    assert isinstance(join([]), Html)


def test_attributes() -> None:
    made = element("rect", x=1.0, y=2.345, class_="a b", data_v=0.123456, hidden=True, title=None, open=False, aria_label='"')
    assert made == '<rect x="1" y="2.35" class="a b" data-v="0.123456" hidden="hidden" aria-label="&quot;"></rect>'
    assert element("br") == "<br />"


def test_characters_that_cannot_be_shown_are_spelled_out() -> None:
    assert text("a\u202eb\0c\udcffd") == "a\\u202eb\\u0000c\\udcffd"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (float("nan"), "–"), (True, "yes"), (13320, "13,320"), (0.123456, "0.1235"), (1e-5, "1e-05"), ("x", "x")],
)
def test_figures_for_readers(value: object, shown: str) -> None:
    assert number(value) == shown


def test_shares_with_their_intervals() -> None:
    assert [share(None), share(0.41), share(0.41, [0.3, 0.5])] == ["–", "0.410", "0.410 (0.300 – 0.500)"]
