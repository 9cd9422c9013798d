"""A report as a tree: parsed as XML, which forgives nothing, and its tables as rows."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element


def parse(path: Path) -> Element:
    """The page's tree. Style and script, which are no XML, are checked for what could end them and left out."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    body = re.sub(r"<(style|script)>(.*?)</\1>", r"<\1></\1>", text, flags=re.DOTALL)
    return ElementTree.fromstring(body.replace(' xmlns="http://www.w3.org/2000/svg"', ""))


def words(element: Element) -> str:
    """All text below an element."""
    return "".join(element.itertext())


def by_id(tree: Element, key: str) -> Element:
    """The one element of an id."""
    found = tree.findall(f".//*[@id='{key}']")
    assert len(found) == 1, f"{len(found)} elements have the id {key}"
    return found[0]


def table(element: Element) -> list[dict[str, str]]:
    """The rows of the first table below an element, by heading: what a cell is sorted by, else what it shows."""
    inner = element.find(".//table")
    assert inner is not None
    header = [words(cell) for cell in inner.findall("./thead/tr/th")]
    rows = inner.findall("./tbody/tr")
    return [dict(zip(header, (cell.get("data-v", words(cell)) for cell in row.findall("td")), strict=True)) for row in rows]


def data(element: Element, name: str) -> Any:
    """The JSON of a data block by its class."""
    block = element.find(f".//script[@class='{name}']")
    assert block is not None
    return json.loads(block.text or "")
