"""HTML and SVG as text in which every word from outside is escaped, because only `Html` is not.

`element("td", name)` escapes a str and keeps an Html as it is; an f-string of Html is a str again, so a slip shows as visible tags and
never as markup. The output is XML as well: quoted attributes, every element closed.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable
from typing import Any

# What XML cannot hold, lone surrogates (a file name that is not UTF-8), and characters that turn the direction of the text around them.
_UNSHOWN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_VOID = {"meta", "br", "input", "img", "hr"}


class Html(str):
    """Markup. Made by `element` and `join` alone, and by `Html(...)` of constants."""

    __slots__ = ()


Child = str | int | None
Attribute = str | int | float | bool | None


def text(words: str) -> Html:
    """Words as they can stand in an element or a quoted attribute."""
    return Html(html.escape(_UNSHOWN.sub(_escaped, words), quote=True))


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def join(parts: Iterable[Child], between: str = "") -> Html:
    """Parts one after the other: Html as it is, anything else escaped, None left out."""
    return Html(text(between).join(part if isinstance(part, Html) else text(str(part)) for part in parts if part is not None))


def element(tag: str, *children: Child, **attributes: Attribute) -> Html:
    """`<tag ...>children</tag>`. An underscore in an attribute's name is a hyphen and one at its end is dropped (class_, data_label).

    An attribute that is None or False is left out, True is written as its own name; floats have at most two decimals (SVG coordinates),
    but all of theirs where they are data.
    """
    words = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        rounded = isinstance(value, float) and not name.startswith("data-")
        content = name if value is True else f"{value:.2f}".rstrip("0").rstrip(".") if rounded else str(value)
        words.append(f'{name}="{text(content)}"')
    opening = " ".join(words)
    return Html(f"<{opening} />") if tag in _VOID else Html(f"<{opening}>{join(children)}</{tag}>")


def data_block(values: Any, **attributes: Attribute) -> Html:
    """JSON for the page's script. Nothing in it can end the element: `<`, `>` and `&` are written as escapes."""
    words = json.dumps(values, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        words = words.replace(character, f"\\u{ord(character):04x}")
    return element("script", Html(words), type="application/json", **attributes)


def name(words: str) -> Html:
    """A name from data (a class, a video), set apart so that its writing direction changes nothing around it."""
    return element("bdi", words)


def number(value: Any) -> str:
    """A figure for a reader: whole numbers with separators, others with four significant digits, a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def share(value: float | None, interval: Iterable[float] | None = None) -> str:
    """A share from 0 to 1 with three digits and its interval; a dash for none."""
    if value is None:
        return "–"
    return f"{value:.3f}" + ("" if interval is None else " ({:.3f} – {:.3f})".format(*interval))
