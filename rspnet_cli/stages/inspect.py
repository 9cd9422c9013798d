"""inspect: whether the files of a lineage still are what they were, and how two lineages differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from rspnet_cli.errors import InputError
from rspnet_cli.file_index import artifact_fault
from rspnet_cli.lineage import Node, flatten, nodes_of
from rspnet_cli.manifest import Manifest
from rspnet_cli.progress import Reporter

# Facts of a run that can explain other results; times and hosts differ always.
_EXPLAINING = ("python", "libraries", "torch_threads", "device")
_PLACE, _ARTIFACT = "place of input ", "artifact "


@dataclass(frozen=True)
class Verified:
    """What re-hashing found. faults: one sentence for each file that is missing or differs, and for each input that does."""

    files: int
    bytes: int
    faults: list[str]


@dataclass(frozen=True)
class Difference:
    """A value that two lineages do not share; None where one has no such value."""

    stage: str
    key: str
    left: Any
    right: Any

    @property
    def is_place(self) -> bool:
        """Whether it is where an input lies, seen from its stage. The digest holds that path; no content does."""
        return self.key.startswith(_PLACE)


def verify_lineage(node: Node, report: Reporter) -> Verified:
    """Hash every artifact of every stage of a lineage."""
    faults = [current.fault for current in nodes_of(node) if current.fault]
    known = [current.manifest for current in nodes_of(node) if current.manifest is not None]
    total = sum(manifest.num_files for manifest in known)
    for file, fault in report.track(chain.from_iterable(map(_hash_again, known)), total=total, unit="files", name="inspect --verify"):
        if fault:
            faults.append(f"{file} {fault}.")
    return Verified(total, sum(manifest.num_bytes for manifest in known), faults)


def _hash_again(manifest: Manifest) -> Iterator[tuple[Path, str | None]]:
    """Every file of a stage and its fault. An index that is damaged tells nothing of the files it lists."""
    for artifact in manifest.artifacts:
        fault = artifact_fault(manifest.folder, artifact, hashed=True)
        yield manifest.folder / artifact.path, fault
        if artifact.lists is not None and fault is None:
            for entry in manifest.indexed():
                yield manifest.folder / entry.path, artifact_fault(manifest.folder, entry, hashed=True)


def compare_lineages(left: Node, right: Node) -> list[Difference]:
    """What differs between two results of one stage and between what they were made from, earliest stage first.

    Where inputs lie is told only where it may explain the rest: nothing, or the bytes of artifacts. Raises InputError if they are of
    different stages.
    """
    if left.stage != right.stage:
        raise InputError(f"{left.path} is of stage '{left.stage}' and {right.path} of '{right.stage}': name two of one stage to compare.")
    found = _compare(left, right, set())
    others = [item for item in found if not item.is_place]
    # features.safetensors names the digests of its inputs: made of equal ones in other places, it has other bytes.
    return found if all(item.key.startswith(_ARTIFACT) for item in others) else others


def _compare(left: Node, right: Node, done: set[tuple[Path, Path]]) -> list[Difference]:
    if (left.path, right.path) in done:
        return []
    done.add((left.path, right.path))
    found: list[Difference] = []
    for stage in dict.fromkeys(below.stage for below in [*left.inputs, *right.inputs]):
        # Several of one stage (the splits behind a mean) stand in the same order on both sides.
        for ours, theirs in zip_longest(_inputs_of(left, stage), _inputs_of(right, stage)):
            if ours is None or theirs is None:
                found.append(Difference(left.stage, f"input {stage}", ours and ours[0].digest, theirs and theirs[0].digest))
                continue
            found += _compare(ours[0], theirs[0], done)
            if ours[1] != theirs[1]:
                found.append(Difference(left.stage, f"{_PLACE}{stage}", ours[1], theirs[1]))
    if left.manifest is None or right.manifest is None:
        if left.digest != right.digest:
            found.append(Difference(left.stage, "digest", left.digest, right.digest))
        return found
    before, after = _facts(left.manifest), _facts(right.manifest)
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            found.append(Difference(left.stage, key, before.get(key), after.get(key)))
    return found


def _inputs_of(node: Node, stage: str) -> list[tuple[Node, str]]:
    """The inputs of one stage, each with its path as the manifest names it."""
    refs = [] if node.manifest is None else node.manifest.inputs
    return [(below, ref.path) for below, ref in zip(node.inputs, refs, strict=True) if below.stage == stage]


def _facts(manifest: Manifest) -> dict[str, Any]:
    """What is compared of a manifest, flat: config, results, artifacts by hash, classes, version and environment."""
    environment = {key: manifest.environment.get(key) for key in _EXPLAINING}
    facts = flatten({"config": manifest.config, "results": manifest.results, "environment": environment})
    facts |= {f"{_ARTIFACT}{artifact.path}": artifact.sha256 for artifact in manifest.artifacts}
    with suppress(InputError):  # `--verify` says what is the matter with it
        facts |= {f"{_ARTIFACT}{entry.path}": entry.sha256 for entry in manifest.indexed()}
    return facts | {"classes_sha256": manifest.classes_sha256, "tool_version": manifest.tool_version}
