"""The last step of a stage: its result moves from `unfinished` to its place, in pieces that can be repeated after a kill at any point."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from rspnet_cli.errors import InputError
from rspnet_cli.files import TEMPORARY, fsync_folder
from rspnet_cli.manifest import MANIFEST, UNFINISHED, Manifest, read_manifest

STATE = "state.json"
_REPLACED = "replaced.json"
_REMAINS = "remains.json"
"""Marks an `unfinished` that is over: what lies in it is ours and can go."""


def is_settled(folder: Path) -> bool:
    """Whether a kill has left `settle` nothing to do."""
    work = folder / UNFINISHED
    return not os.path.lexists(work) or ((work / STATE).exists() and not (work / MANIFEST).exists())


def settle(folder: Path) -> bool:
    """Move a whole result from `unfinished` to its place. Safe to repeat from wherever a kill stopped it. Whether there was one."""
    work = folder / UNFINISHED
    if not (work / MANIFEST).exists():
        if not is_settled(folder):  # no state: a run that had not begun, or the remains of one that is over
            _refuse_foreign(work)
            discard(work)
        return False
    new = read_manifest(work, verify=False)
    _mark_as_over(work)
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
    with suppress(OSError):  # the next run tries again
        discard(work)
    return True


def discard(work: Path) -> None:
    """Delete the `unfinished` of a run that is not to be continued. Its mark goes last: after a kill the rest is known to be ours."""
    _mark_as_over(work)
    for name in sorted(set(os.listdir(work)) - {_REMAINS}):
        if (work / name).is_dir() and not (work / name).is_symlink():
            shutil.rmtree(work / name)
        else:
            (work / name).unlink()
    (work / _REMAINS).unlink(missing_ok=True)
    work.rmdir()


def files_of_result(folder: Path, stage: str) -> list[str]:
    """What the manifest of a finished result of this stage lists, even an edited one; nothing where there is none.

    Raises InputError where the manifest is of another stage, or cannot be read: then nobody can tell our files from the user's.
    """
    if not os.path.lexists(folder / MANIFEST):
        return []
    try:
        manifest = read_manifest(folder, verify=False, edited=True)
    except InputError as error:
        raise InputError(
            f"Which files in {folder} are a result of ours cannot be told ({str(error).rstrip('.')}); nothing was replaced: "
            "move them away, or use --out DIR."
        ) from error
    if manifest.stage != stage:
        raise InputError(f"{folder} holds a finished {manifest.stage}, which --force of {stage} does not replace: use --out DIR.")
    return _files_of(manifest)


def refuse_to_overwrite(folder: Path, stage: str, paths: Sequence[str]) -> None:
    """Raise InputError where something stands in the way of a result that no run of ours put there."""
    ours = set(files_of_result(folder, stage))
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


def _mark_as_over(work: Path) -> None:
    """From here on nothing in it can be resumed, nor taken for the user's."""
    if (work / STATE).exists():
        (work / STATE).replace(work / _REMAINS)


def _refuse_foreign(work: Path) -> None:
    names = os.listdir(work) if work.is_dir() else [""]
    # A kill before the state was written leaves an empty folder, or the state's temporary file.
    if _REMAINS not in names and (foreign := [name for name in names if not name.startswith(TEMPORARY)]):
        raise InputError(f"{work / foreign[0]} was not made by a run of ours: move it away, or use --out DIR.")


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
