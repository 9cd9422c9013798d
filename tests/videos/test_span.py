"""Parts of videos as they are typed: every spelling of a time, and names that look like a part and are none."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rspnet_cli.videos.span import Span, span_text, split_span, time_text


@pytest.mark.parametrize(
    ("typed", "file", "start", "end"),
    [
        ("a.mp4@00:12-00:20", "a.mp4", 12, 20),
        ("a.mp4@12-20", "a.mp4", 12, 20),
        ("a.mp4@0.52-1.5", "a.mp4", Fraction(13, 25), Fraction(3, 2)),
        ("a.mp4@1:02:03.25-100:00:00", "a.mp4", Fraction("3723.25"), 360_000),
        ("a.mp4@90:00-91:00.5", "a.mp4", 5400, Fraction("5460.5")),
        ("a.mp4@7-", "a.mp4", 7, None),
        ("a.mp4@-7", "a.mp4", 0, 7),
        ("me@home.mp4@1-2", "me@home.mp4", 1, 2),
        ("a@3-4@1-2", "a@3-4", 1, 2),
        ("with\nline.mp4@1-2", "with\nline.mp4", 1, 2),
    ],
)
def test_a_part_is_read_as_typed(typed: str, file: str, start: Fraction, end: Fraction | None) -> None:
    assert split_span(typed) == (file, Span(Fraction(start), None if end is None else Fraction(end)))


@pytest.mark.parametrize(
    "typed",
    [
        "a.mp4",
        "me@home.mp4",
        "a@b",
        "a.mp4@",
        "a.mp4@-",
        "@1-2",
        "a.mp4@1",
        "a.mp4@1-2-3",
        "a.mp4@00:75-99:99",
        "a@1:2:3:4-5",
        "a@1.-2",
        "",
    ],
)
def test_what_names_no_part_is_a_file(typed: str) -> None:
    assert split_span(typed) == (typed, None)


def test_a_file_that_is_there_is_meant_by_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4@00:12-00:20").touch()
    (tmp_path / "b.mp4@1-2").symlink_to("nowhere")
    for name in ("a.mp4@00:12-00:20", "b.mp4@1-2", str(tmp_path / "a.mp4@00:12-00:20")):
        assert split_span(name) == (name, None)
    assert split_span("a.mp4@00:12-00:20@1-2")[0] == "a.mp4@00:12-00:20"


@given(hundredths=st.integers(0, 10**9))
def test_a_time_is_told_as_it_can_be_typed(hundredths: int) -> None:
    seconds = Fraction(hundredths, 100)
    assert split_span(f"a@{time_text(seconds)}-") == ("a", Span(seconds, None))
    assert split_span(f"a@{time_text(float(seconds))}-") == ("a", Span(seconds, None))


def test_how_a_part_is_told() -> None:
    assert span_text(0, 0.64) == "00:00.00-00:00.64"
    assert str(Span(Fraction(3723), None)) == "1:02:03.00-"
    assert time_text(59.999) == "01:00.00"
