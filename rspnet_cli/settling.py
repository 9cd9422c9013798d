"""The last steps of a stage: what it made is listed, and moves from `unfinished` to its place repeatable after a kill."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath

from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.file_index import INDEX, Entry, compare_with_folder, read_index, write_index
from rspnet_cli.files import TEMPORARY, fsync_folder, sha256_of
from rspnet_cli.manifest import MANIFEST, UNFINISHED, Artifact, Listed, Manifest, read_manifest

STATE = "state.json"
_REPLACED = "replaced.json"
_REMAINS = "remains.json"
"""Marks an `unfinished` that is over: what lies in it is ours and can go."""


def listed_artifact(work: Path, path: str) -> Artifact:
    """A file of an unfinished stage, hashed."""
    return Artifact(path=path, bytes=(work / path).stat().st_size, sha256=sha256_of(work / path))


def write_index_of(work: Path, folder: str, entries: Iterable[Entry]) -> Artifact:
    """Write the index of all that is in a folder of an unfinished stage, and clear the folder of what was left there beside it.

    entries: as of `write_index`, all below `folder`. Raises RspnetError where one is missing.
    """
    files, size = write_index(work / INDEX, entries)
    for path, is_listed in compare_with_folder(work, folder, read_index(work / INDEX)):
        if is_listed:
            raise RspnetError(f"{work / path} has vanished since it was written: type the same command again.")
        (work / path).unlink()
        with suppress(OSError):  # not empty yet
            (work / path).parent.rmdir()
    return listed_artifact(work, INDEX).model_copy(update={"lists": Listed(folder=folder, files=files, bytes=size)})


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
            remove_result(folder, read_manifest(work / _REPLACED, verify=False))
        # Only now may files move: repeated after a kill, the removal would take new files of the same names.
        (work / _REPLACED).unlink()
    move_listed(work, folder, new)
    for path in _files_of(new):  # among them the index, which says what had to move before it
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


def move_into(source: Path, target: Path, *, is_whole: Callable[[Path], bool]) -> None:
    """Move a folder to a place where a part of it, or something else, may be already; where nothing is, in one step.

    is_whole: whether a folder below `source` is one thing that replaces what is at its place. Safe to repeat after a kill.
    """
    if not source.exists():
        return
    if not os.path.lexists(target):
        source.rename(target)
        return
    for name in sorted(os.listdir(source)):
        ours, theirs = source / name, target / name
        is_folder = theirs.is_dir() and not theirs.is_symlink()
        if is_folder and ours.is_dir() and not is_whole(ours):
            move_into(ours, theirs, is_whole=is_whole)
            continue
        if is_folder:  # a folder artifact that an earlier kill left half removed
            shutil.rmtree(theirs)
        ours.replace(theirs)
    source.rmdir()


def move_listed(source: Path, target: Path, manifest: Manifest) -> None:
    """Move all that the index in `source` lists (nothing else lies in its folder) to `target`. Safe to repeat after a kill."""
    if manifest.listed is None:
        return

    @cache
    def artifacts() -> set[str]:
        return {entry.path for entry in read_index(source / INDEX)}

    def is_artifact(path: Path) -> bool:
        return f"{path.relative_to(source).as_posix()}/" in artifacts()

    move_into(source / manifest.listed.folder, target / manifest.listed.folder, is_whole=is_artifact)


def files_of_result(folder: Path, stage: str) -> set[str]:
    """What the manifest of a finished result of this stage and its index list, even edited ones; nothing where there is none.

    Raises InputError where the manifest is of another stage, or one of the two cannot be read: then nobody can tell our files from the
    user's.
    """
    if not os.path.lexists(folder / MANIFEST):
        return set()
    try:
        manifest = read_manifest(folder, verify=False, edited=True)
        files = set(_files_of(manifest)) | {entry.path.rstrip("/") for entry in manifest.indexed()}
    except InputError as error:
        raise InputError(
            f"Which files in {folder} are a result of ours cannot be told ({str(error).rstrip('.')}); nothing was replaced: "
            "move them away, or use --out DIR."
        ) from error
    if manifest.stage != stage:
        raise InputError(f"{folder} holds a finished {manifest.stage}, which --force of {stage} does not replace: use --out DIR.")
    return files


def refuse_to_overwrite(folder: Path, stage: str, work: Path, artifacts: Iterable[Artifact], logs: Iterable[str]) -> None:
    """Raise InputError where something stands in the way of the result in `work` that no run of ours put there."""
    ours = files_of_result(folder, stage)
    for path in _places(folder, work, artifacts, logs):
        parents = [folder / parent for parent in PurePosixPath(path).parents if parent.parts]
        in_the_way = [parent for parent in parents if os.path.lexists(parent) and (parent.is_symlink() or not parent.is_dir())]
        if path not in ours and os.path.lexists(folder / path):
            in_the_way.append(folder / path)
        if in_the_way:
            raise InputError(
                f"{in_the_way[0]} is in the way of a result and was not made by this stage: move it away and type the same command again; "
                "what is done is kept."
            )


def _places(folder: Path, work: Path, artifacts: Iterable[Artifact], logs: Iterable[str]) -> Iterator[str]:
    """Where the files of a result will go, below `folder`; those of the index only where their own folder is there already."""
    yield from logs
    for artifact in artifacts:
        yield artifact.path.rstrip("/")
        if artifact.lists is not None and os.path.lexists(folder / artifact.lists.folder):
            yield from (entry.path.rstrip("/") for entry in read_index(work / INDEX))


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
    """All but what its index lists."""
    return [artifact.path.rstrip("/") for artifact in manifest.artifacts] + list(manifest.environment.get("logs", []))


def remove_result(folder: Path, manifest: Manifest) -> None:
    """Delete what the manifest of a result in `folder` lists (nothing else is ours to delete), but not the manifest itself.

    The index goes last: repeated after a kill, it says what is left. Where it cannot be read, what it lists stays.
    """
    if manifest.listed is not None and (folder / manifest.listed.folder).exists():
        with suppress(InputError):
            _remove_files(folder, (entry.path for entry in read_index(folder / INDEX)))
    _remove_files(folder, _files_of(manifest))


def _remove_files(folder: Path, paths: Iterable[str]) -> None:
    """Delete files and the folders that become empty by it."""
    root = folder.resolve()
    inside = cache(lambda parent: parent.resolve().is_relative_to(root))  # few folders, many files
    parents: set[Path] = set()
    for path in paths:
        target = folder / path
        if ".." in Path(path).parts or not inside(target.parent):
            continue
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)
        parents.update(parent for parent in target.parents if parent != folder and parent.is_relative_to(folder))
    for parent in sorted(parents, key=lambda item: len(item.parts), reverse=True):
        with suppress(OSError):
            parent.rmdir()
