"""How a result came about: its manifest, and behind it those of all that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rspnet_cli.errors import InputError
from rspnet_cli.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class Node:
    """A manifest and the manifests it was made from. fault: why an input cannot be shown, then manifest is None."""

    stage: str
    path: Path
    digest: str
    manifest: Manifest | None
    inputs: list[Node]
    fault: str | None = None


def read_lineage(path: Path) -> Node:
    """The manifest and, behind it, all it was made from.

    An input that is missing, edited or another one than was read becomes a node with a fault; its own inputs are not followed. Raises
    InputError if the manifest itself cannot be read.
    """
    return _node(read_manifest(path, verify=False), {})


def _node(manifest: Manifest, known: dict[Path, Node]) -> Node:
    place = manifest.path.resolve()
    if place not in known:
        inputs = []
        for ref in manifest.inputs:
            try:
                # A digest holds those of its inputs: as long as they match, there is no way round in a circle.
                inputs.append(_node(manifest.read_input(ref, verify=False), known))
            except InputError as error:
                inputs.append(Node(ref.stage, manifest.place_of(ref), ref.digest, None, [], str(error)))
        known[place] = Node(manifest.stage, manifest.path, manifest.digest, manifest, inputs)
    return known[place]


def nodes_of(node: Node) -> Iterator[Node]:
    """Every node of a lineage once, inputs first: the order in which the stages ran."""
    seen: set[int] = set()

    def walk(current: Node) -> Iterator[Node]:
        for below in current.inputs:
            yield from walk(below)
        if id(current) not in seen:
            seen.add(id(current))
            yield current

    return walk(node)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; empty sections vanish."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def lineage_json(node: Node) -> dict[str, Any]:
    """A lineage as JSON values: the manifest's own, `path`, and `inputs` nested in place of the references."""
    if node.manifest is None:
        return {"stage": node.stage, "path": str(node.path), "digest": node.digest, "fault": node.fault, "inputs": []}
    fields = node.manifest.model_dump(mode="json", exclude={"inputs"})
    return {"path": str(node.path), **fields, "fault": None, "inputs": [lineage_json(below) for below in node.inputs]}
