"""Parts of a stage for the tasks of a job array: which there are, where they lie, and whether they belong together.

    <out>.shard-3-of-64/    shard 3 of 64, a stage's folder like any other: lock, manifest, resumable
    <out>/                  the result, which `rspnet merge` makes of all of them

A shard is of stage `<stage>-shard`, so that no later stage takes a part for the whole. What it holds is a function of the listing of
all videos and of its number: nothing that another task does, or how many workers any of them has, changes it.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rspnet_cli.errors import InputError
from rspnet_cli.lineage import flatten
from rspnet_cli.manifest import MANIFEST, SHARD_MARK, SHARD_SUFFIX, UNFINISHED, Manifest, check_artifact, read_manifest
from rspnet_cli.settling import STATE

MAX_SHARDS = 100_000
OWN_SETTINGS = ("shard", "listing_sha256")
"""Settings that shards have beside those of the whole."""


@dataclass(frozen=True, order=True)
class Shard:
    """Shard `index` of `count`, from 1 to `count`, as in Slurm's `--array=1-64`."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """ "3/64" -> shard 3 of 64. Raises InputError."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None:
            raise InputError(f"--shard {text}: write it as i/N, for example --shard 3/64 (Slurm: --shard $SLURM_ARRAY_TASK_ID/64).")
        index, count = int(match[1]), int(match[2])
        if not 1 <= count <= MAX_SHARDS:
            raise InputError(f"--shard {text}: the number of shards must be from 1 to {MAX_SHARDS:,}.")
        if not 1 <= index <= count:
            raise InputError(
                f"--shard {text}: shards are numbered from 1 to {count}; number the tasks of the array so (--array=1-{count})."
            )
        return cls(index, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def folder(self, out: Path) -> Path:
        """The folder of this shard of the result `out`."""
        return Path(f"{_plain(out)}{SHARD_MARK}{self.index}-of-{self.count}")

    def part(self, total: int) -> range:
        """This shard's part of `total` things in a row: parts are as equal as can be, and together all."""
        return range((self.index - 1) * total // self.count, self.index * total // self.count)

    def deals(self, place: int) -> bool:
        """Whether the thing at a place of an order is this shard's when they are dealt out back and forth: 1 2 3 3 2 1 1 2 3 ...

        Of things ordered by falling weight, no shard then gets more than another by more than the heaviest one.
        """
        turn, seat = divmod(place, self.count)
        return self.index == (self.count - seat if turn % 2 else seat + 1)


def is_output(path: str, out: str) -> bool:
    """Whether a real path is that of a result's folder, or of one of its shards."""
    return path == out or path.startswith(out + SHARD_MARK)


def shard_folders(out: Path) -> list[Path]:
    """The folders that lie where the shards of a result do, by number."""
    plain = _plain(out)
    pattern = re.compile(rf"{re.escape(plain.name + SHARD_MARK)}(\d+)-of-(\d+)")
    try:
        names = os.listdir(plain.parent)
    except OSError:
        return []
    found = [(int(match[2]), int(match[1]), name) for name in names if (match := pattern.fullmatch(name))]
    return [plain.parent / name for _, _, name in sorted(found)]


def refuse_other_siblings(shard: Shard, out: Path, config: Mapping[str, Any], inputs: Mapping[str, Manifest]) -> None:
    """Raise InputError where another shard of the same result, finished or begun, has other settings, inputs or listing than this one.

    Also where a merge has begun, which may have moved files of this one.
    """
    state = _state(out)
    if str(state.get("command")).startswith("merge "):
        raise InputError(f"{out} holds a merge of these shards that is not finished: type `rspnet {state['command']}` again.")
    digests = {name: manifest.digest for name, manifest in inputs.items()}
    for folder in shard_folders(out):
        if folder.name.endswith(f"-of-{shard.count}") and folder != shard.folder(out):
            begun = _begun(folder)
            if begun is not None and (words := differences(*begun, dict(config), digests)):
                raise InputError(
                    f"Shard {shard} would not belong to {folder} ({words}): give all shards the same videos and settings, add --force to "
                    "begin all of them anew, or use another --out."
                )


def _begun(folder: Path) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Settings and digests of the inputs of a shard that is finished or begun; None where that cannot be told (merge will)."""
    try:
        if (folder / MANIFEST).exists():
            manifest = read_manifest(folder, verify=False)
            return manifest.config, {ref.stage: ref.digest for ref in manifest.inputs}
        state = _state(folder)
        return dict(state["config"]), dict(state["inputs"])
    except (InputError, ValueError, KeyError, TypeError):
        return None


def _state(folder: Path) -> dict[str, Any]:
    """What the unfinished run in a folder has noted; nothing where there is none."""
    try:
        state = json.loads((folder / UNFINISHED / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def differences(theirs: Mapping[str, Any], their_inputs: Mapping[str, str], ours: Mapping[str, Any], our_inputs: Mapping[str, str]) -> str:
    """What two shards of one run should share and do not, in words; empty if all is well."""
    before, now = ({key: value for key, value in flatten(dict(config)).items() if key != "shard"} for config in (theirs, ours))
    words = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old != new:  # a hash tells a reader nothing
            words.append(f"other {key[:-7]}" if key.endswith("_sha256") else f"{key} is {json.dumps(old)} there, {json.dumps(new)} here")
    stages = sorted(our_inputs.keys() | their_inputs.keys())
    words += [f"other {stage}" for stage in stages if their_inputs.get(stage) != our_inputs.get(stage)]
    return "; ".join(words)


def read_shards(stage: str, folders: Iterable[Path]) -> list[Manifest]:
    """The manifests of all shards of one run, in the order of their numbers, whatever the order of the folders.

    Their own files are checked, those of an index not: a merge that was stopped may have moved some. Raises InputError naming the shards
    that are missing, unfinished, there twice, or do not belong together.
    """
    found: dict[Shard, list[Manifest]] = defaultdict(list)
    unfinished = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"There is no {folder}: name the folders of the shards of {stage}.")
        if not (folder / MANIFEST).exists():  # without anything it is a shard that was refused, and missing
            unfinished += [folder] if (folder / UNFINISHED).is_dir() else []
            continue
        manifest = read_manifest(folder, stage=f"{stage}{SHARD_SUFFIX}", verify=False)
        found[Shard.parse(str(manifest.config.get("shard")))].append(manifest)
    if unfinished:
        names = ", ".join(str(folder) for folder in unfinished[:5]) + (", ..." if len(unfinished) > 5 else "")
        raise InputError(f"Unfinished shards of {stage}: {names}. Type their commands again to continue them, then this one.")
    if not found:
        raise InputError(f"There are no shards of {stage} to merge: run `rspnet {stage} ... --shard i/N` for each i from 1 to N first.")
    counts = sorted({shard.count for shard in found})
    if len(counts) > 1:
        one_of_each = " and ".join(str(next(found[shard][0].folder for shard in found if shard.count == count)) for count in counts)
        raise InputError(f"There are shards of {stage} of different numbers of shards ({one_of_each}): name those to merge.")
    for shard, manifests in sorted(found.items()):
        if len(manifests) > 1:
            names = " and ".join(str(manifest.folder) for manifest in manifests)
            raise InputError(f"Shard {shard} of {stage} is there more than once ({names}): leave out all but one.")
    missing = [index for index in range(1, counts[0] + 1) if Shard(index, counts[0]) not in found]
    if missing:
        which = f"{len(missing)} {'is' if len(missing) == 1 else 'are'} missing ({_numbers(missing)})"
        more = " and so on" if len(missing) > 1 else ""
        raise InputError(
            f"Of the {counts[0]} shards of {stage}, {which}: run `rspnet {stage} ... --shard {missing[0]}/{counts[0]}`{more} first."
        )
    shards = [found[shard][0] for shard in sorted(found)]
    for manifest in shards:
        _refuse_other(shards[0], manifest)
        for artifact in manifest.artifacts:
            check_artifact(manifest, artifact, hashed=True)
    return shards


def _refuse_other(first: Manifest, other: Manifest) -> None:
    """Raise InputError where two shards are not of one run."""
    inputs = ({ref.stage: ref.digest for ref in manifest.inputs} for manifest in (first, other))
    words = differences(first.config, next(inputs), other.config, next(inputs))
    if first.classes_sha256 != other.classes_sha256:
        words = "; ".join(filter(None, [words, "other classes"]))
    if first.tool_version != other.tool_version:
        words = "; ".join(filter(None, [words, f"rspnet is {first.tool_version} there, {other.tool_version} here"]))
    if words:
        raise InputError(
            f"{other.folder} does not belong to {first.folder} ({words}): run one of the two again with the other's videos, settings and "
            "version, and --force."
        )


def _numbers(numbers: Sequence[int]) -> str:
    """ "1, 3-5, 9", of many the first."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    words = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join(words[:20]) + (", ..." if len(words) > 20 else "")


def _plain(out: Path) -> Path:
    """A path whose last part is a name."""
    return out if out.name not in ("", "..") else Path(os.path.abspath(out))  # noqa: PTH100 (keeps links as they are)
