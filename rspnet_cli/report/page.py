"""The page around the sections: head, summary, contents, styles, script. It can load nothing and runs no script but ours."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

import rspnet_cli
from rspnet_cli.errors import InputError
from rspnet_cli.report.figure import LeftOut, Section
from rspnet_cli.report.html import Child, Html, data_block, element, join

GENERATOR = "rspnet-cli"
_HEAD_BYTES = 4096


def page(
    title: str,
    summary: Child,
    sections: Sequence[Section],
    left_out: Sequence[LeftOut],
    *,
    clip_rules: Iterable[tuple[str, str]],
    command: str,
) -> str:
    """The whole document. clip_rules: (CSS class, rule) of every clip there is. command: what made it, such as report."""
    clips = list(clip_rules)
    # A rule that begins anew after the base64 data cannot be ended by it; class names and data are of harmless letters alone.
    style = Html(_file("page.css") + "\n" + "\n".join(rule for _, rule in clips) + "\n")
    script = Html(_file("page.js"))
    contents = [element("a", part.title, href=f"#{part.key}") for part in sections]
    body = [
        element("header", element("h1", title), summary, element("nav", *contents, aria_label="Contents")),
        element("main", *(_section(part.key, part.title, part.body) for part in sections), _left_out(left_out)),
        element("footer", element("p", f"Made by rspnet {rspnet_cli.__version__} with `rspnet {command}`. One file: it loads nothing.")),
        element("div", id="tip", role="status"),
        data_block([name for name, _ in clips], id="clips"),
        element("script", script),
    ]
    head = [
        element("meta", charset="utf-8"),
        # Should a name ever slip through unescaped, it still could not run or load anything.
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content=f"{GENERATOR} {rspnet_cli.__version__}"),
        element("title", f"rspnet: {title}"),
        element("style", style),
    ]
    html = element("html", element("head", *_lines(head)), element("body", *_lines(body)), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


def check_target(target: Path, *, force: bool) -> None:
    """Raise InputError where a page cannot go: something else than an earlier page is there (and no force), or no file can be."""
    try:
        with target.open("rb") as file:
            if force or f'name="generator" content="{GENERATOR}'.encode() in file.read(_HEAD_BYTES):
                return
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}): name another file with --out.") from error
    raise InputError(f"{target} is there and no page of rspnet: move it away, name another file with --out, or add --force.")


def _lines(parts: Iterable[Html]) -> list[Html]:
    return [Html(part + "\n") for part in parts]


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _section(key: str, title: str, body: Html) -> Html:
    return element("section", element("h2", title, id=f"{key}-heading"), body, id=key, aria_labelledby=f"{key}-heading")


def _left_out(parts: Sequence[LeftOut]) -> Html | None:
    if not parts:
        return None
    rows = (element("li", element("b", part.title), ": ", part.reason, id=part.key) for part in parts)
    return _section("left-out", "Left out", element("ul", *rows))


def tiles(figures: Iterable[tuple[str, str, str]]) -> Html:
    """(name, figure, what to compare it with) side by side."""
    boxes = (
        element("div", element("span", name), element("b", value), element("small", beside), class_="tile")
        for name, value, beside in figures
    )
    return element("div", join(boxes), class_="tiles")


def _file(name: str) -> str:
    return (resources.files("rspnet_cli.report") / name).read_text(encoding="utf-8")
