"""The last step of a stage: its result moves from `unfinished` to its place, in pieces that can be repeated after a kill at any point."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from rspnet_cli.errors import InputError
from rspnet_cli.files import fsync_folder
from rspnet_cli.manifest import MANIFEST, UNFINISHED, Manifest, read_manifest

STATE = "state.json"
_REPLACED = "replaced.json"


def is_settled(folder: Path) -> bool:
    """Whether a kill has left `settle` nothing to do."""
    work = folder / UNFINISHED
    return not os.path.lexists(work) or ((work / STATE).exists() and not (work / MANIFEST).exists())


def settle(folder: Path) -> bool:
    """Move a whole result from `unfinished` to its place. Safe to repeat from wherever a kill stopped it. Whether there was one."""
    work = folder / UNFINISHED
    if not (work / MANIFEST).exists():
        if not is_settled(folder):  # no state: a run that had not begun, or the remains of one that is settled
            shutil.rmtree(work)
        return False
    new = read_manifest(work, verify=False)
    # From here on nothing can be resumed; without the state a kill's remains are not taken for a run to continue.
    (work / STATE).unlink(missing_ok=True)
    if (folder / MANIFEST).exists():
        (folder / MANIFEST).replace(work / _REPLACED)
    if (work / _REPLACED).exists():
        with suppress(InputError):  # an unreadable old manifest names nothing to delete
            old = read_manifest(work / _REPLACED, verify=False)
            _remove_files(folder, _files_of(old))
        # Only now may files move: repeated after a kill, the removal would take new files of the same names.
        (work / _REPLACED).unlink()
    for path in _files_of(new):
        source, target = work / path, folder / path
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir() and not target.is_symlink():  # a folder artifact that an earlier kill left half removed
                shutil.rmtree(target)
            source.replace(target)
    (work / MANIFEST).replace(folder / MANIFEST)
    fsync_folder(folder)
    shutil.rmtree(work, ignore_errors=True)
    return True


def refuse_to_overwrite(folder: Path, paths: Sequence[str]) -> None:
    """Raise InputError where something stands in the way of a result that no run of ours put there."""
    ours: set[str] = set()
    if (folder / MANIFEST).exists():
        try:
            ours = set(_files_of(read_manifest(folder, verify=False)))
        except InputError:  # a damaged manifest (--force): what it listed cannot be told from the rest
            return
    for path in paths:
        parents = [folder / parent for parent in PurePosixPath(path).parents if parent.parts]
        in_the_way = [parent for parent in parents if os.path.lexists(parent) and (parent.is_symlink() or not parent.is_dir())]
        if path not in ours and os.path.lexists(folder / path):
            in_the_way.append(folder / path)
        if in_the_way:
            raise InputError(
                f"{in_the_way[0]} is in the way of a result and was not made by this stage: move it away and type the same command again; "
                "what is done is kept."
            )


def _files_of(manifest: Manifest) -> list[str]:
    return [artifact.path.rstrip("/") for artifact in manifest.artifacts] + list(manifest.environment.get("logs", []))


def _remove_files(folder: Path, paths: Sequence[str]) -> None:
    """Delete what an old manifest lists (nothing else is ours to delete) and the folders that become empty by it."""
    root = folder.resolve()
    parents: set[Path] = set()
    for path in paths:
        target = folder / path
        if ".." in Path(path).parts or not target.parent.resolve().is_relative_to(root):
            continue
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)
        parents.update(parent for parent in target.parents if parent != folder and parent.is_relative_to(folder))
    for parent in sorted(parents, key=lambda item: len(item.parts), reverse=True):
        with suppress(OSError):
            parent.rmdir()
