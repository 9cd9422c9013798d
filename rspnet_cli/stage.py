"""The life of a stage's folder: locked, begun, resumed, finished in one step, found finished again.

    <out>/manifest.json, artifacts, logs    the finished result; manifest.json is there only when all of it is
    <out>/unfinished/                       everything a running or stopped stage has written so far, all of it ours
    <out>/.lock                             held while a run works here; names its host and process

A stage writes into `unfinished`. `finish` hashes the artifacts and writes the new manifest there: from that moment on the result is
whole, and moving it to its place can be repeated after a kill (`settle`). The old result of a `--force` run stays until then.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rspnet_cli
from rspnet_cli import distributed
from rspnet_cli.environment import describe_environment
from rspnet_cli.errors import InputError, RspnetError
from rspnet_cli.file_index import Entry
from rspnet_cli.files import disk_full, is_disk_full, write_atomic
from rspnet_cli.locks import hold_lock
from rspnet_cli.manifest import MANIFEST, SCHEMA_VERSION, UNFINISHED, InputRef, Manifest, read_manifest
from rspnet_cli.progress import Reporter
from rspnet_cli.settling import STATE, discard, files_of_result, is_settled, listed_artifact, refuse_to_overwrite, settle, write_index_of


@dataclass
class Stage:
    """A stage that has begun. `finished`: there is nothing to do, `manifest` is the result."""

    name: str
    config: dict[str, Any]
    inputs: dict[str, Manifest]
    folder: Path
    manifest: Manifest | None = None
    resumed: bool = False
    started: float = field(default_factory=time.perf_counter)

    @property
    def finished(self) -> bool:
        """Whether an equal run has finished here before."""
        return self.manifest is not None

    @property
    def work(self) -> Path:
        """The folder to write into; what an interrupted run left is still there."""
        return self.folder / UNFINISHED

    @property
    def classes_differ(self) -> bool:
        """Whether inputs that have classes have different lists of them: equal labels then mean different things."""
        return len({manifest.classes_sha256 for manifest in self.inputs.values()} - {None}) > 1

    def finish(
        self,
        *,
        results: dict[str, Any],
        artifacts: Sequence[str] = (),
        indexed: tuple[str, Iterable[Entry]] | None = None,
        logs: Sequence[str] = (),
        classes_sha256: str | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Make the stage's result whole: hash, write the manifest, move everything to its place.

        artifacts: paths below `work` to hash and list. indexed: a folder of `work` ("frames/") and all artifacts in it, many, sorted by
        path, with hashes that are known already: they go into an index. logs: files to keep that are no artifacts (timings). Whatever
        else lies in `work` was needed only for resuming and is deleted. environment: more facts of this run beside the usual ones.
        Raises InputError where a file must go that is there and not ours, RspnetError where an indexed one is missing; nothing of the run
        is lost by either.
        """
        listed = [listed_artifact(self.work, path) for path in artifacts]
        if indexed is not None:
            listed.append(write_index_of(self.work, *indexed))
        kept = [log for log in logs if (self.work / log).exists()]
        refuse_to_overwrite(self.folder, self.name, self.work, listed, kept)
        facts = describe_environment() | {
            "seconds": round(time.perf_counter() - self.started, 3),
            "resumed": self.resumed,
        }
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            stage=self.name,
            tool_version=rspnet_cli.__version__,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            config=self.config,
            inputs=_input_refs(self.inputs, self.folder),
            artifacts=sorted(listed, key=lambda artifact: artifact.path),
            results=results,
            classes_sha256=classes_sha256,
            environment=facts | dict(environment or {}) | {"logs": kept},
            digest="",
        )
        # Through JSON once, so that the digest is that of what a reader will parse (tuples become lists, and so on).
        manifest = Manifest.model_validate_json(manifest.model_dump_json())
        manifest.digest = manifest.computed_digest()
        write_atomic(self.work / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        settle(self.folder)
        self.manifest = read_manifest(self.folder, stage=self.name, verify=False)
        return self.manifest


@contextmanager
def begin_stage(
    name: str,
    config: dict[str, Any],
    *,
    inputs: Mapping[str, Path | Manifest],
    out: Path,
    force: bool = False,
    report: Reporter | None = None,
    command: str | None = None,
) -> Iterator[Stage]:
    """Open a stage's folder for one run.

    config: the resolved settings that identify the run (JSON values; no worker counts or times). inputs: stage name -> manifest file or
    folder, checked here, or a manifest that was read and checked before. command: what makes the stage, where that is not the command
    called so; what one command has left unfinished, no other continues or replaces. Yields a Stage that is finished (same config and
    inputs), resumed, or new. Raises InputError when the folder holds a result or an unfinished run of other settings and `force` is not
    set, BusyError when another run holds it.
    """
    report = report or Reporter.silent()
    if not distributed.is_main():
        yield _follow(name, config, inputs, out)
        return
    # os.path here and in `_finished`: Path.exists raises for a name that is too long.
    created = [path for path in (out, *out.parents) if not os.path.exists(path)]  # noqa: PTH110
    try:
        read = {stage: source if isinstance(source, Manifest) else read_manifest(source, stage=stage) for stage, source in inputs.items()}
        for manifest in read.values():
            if os.path.realpath(manifest.folder) == os.path.realpath(out):  # it would replace what it was made from
                raise InputError(f"{out} holds what this {name} would start from: name another folder with --out.")
        # JSON once, so that a fresh config and one read from a file compare equal.
        stage = Stage(name=name, config=json.loads(json.dumps(config)), inputs=read, folder=out)
        if force:
            files_of_result(out, name)  # what cannot be replaced is said now, not when the work is done
        elif is_settled(out):
            stage.manifest = _finished(stage)
    except RspnetError as error:
        distributed.share((False, str(error)))
        raise
    if stage.finished:
        distributed.share((True, ""))
        report.info(f"{name}: finished already in {out} with the same settings and inputs; nothing to do (--force starts anew).")
        yield stage
        return
    try:
        with hold_lock(out):
            try:
                settled = settle(out)
                if not force:
                    stage.manifest = _finished(stage)
                elif settled:  # a forced run was killed when its result was whole: if it was this one, it is done
                    with suppress(InputError):
                        stage.manifest = _finished(stage)
                if not stage.finished:
                    _begin_or_resume(stage, command or name, force=force, report=report)
            except RspnetError as error:
                distributed.share((False, str(error)))
                raise
            distributed.share((stage.finished, ""))
            fresh = not stage.resumed
            try:
                yield stage
            except InputError:
                # A refused command leaves nothing behind: its folder held no work yet.
                if fresh and stage.work.is_dir() and os.listdir(stage.work) == [STATE]:
                    shutil.rmtree(stage.work)
                raise
            except OSError as error:
                if is_disk_full(error):
                    raise disk_full(Path(error.filename or stage.work)) from error
                raise
    finally:
        _remove_empty(out, created)


def _follow(name: str, config: dict[str, Any], inputs: Mapping[str, Path | Manifest], out: Path) -> Stage:
    """The other ranks wait for rank 0 and see the same stage; its error is theirs, and rank 0 alone prints it."""
    finished, message = distributed.share(None)
    if message:
        raise InputError(message)
    read = {
        stage: source if isinstance(source, Manifest) else read_manifest(source, stage=stage, verify=False)
        for stage, source in inputs.items()
    }
    stage = Stage(name=name, config=json.loads(json.dumps(config)), inputs=read, folder=out)
    stage.manifest = read_manifest(out, stage=name, verify=False) if finished else None
    return stage


def _input_refs(inputs: Mapping[str, Manifest], folder: Path) -> list[InputRef]:
    return [
        InputRef(stage=manifest.stage, path=Path(os.path.relpath(manifest.path, folder.absolute())).as_posix(), digest=manifest.digest)
        for manifest in inputs.values()
    ]


def find_finished(name: str, config: dict[str, Any], *, inputs: Mapping[str, Manifest], out: Path) -> Manifest | None:
    """The finished result of a stage in a folder, if it is of this config and these inputs; None if there is none.

    Raises InputError if it is of others.
    """
    return _finished(Stage(name=name, config=json.loads(json.dumps(config)), inputs=dict(inputs), folder=out))


def _finished(stage: Stage) -> Manifest | None:
    """The finished result in the folder if it is of this config and these inputs. Raises InputError if it is of others."""
    if not os.path.exists(stage.folder / MANIFEST):  # noqa: PTH110
        return None
    manifest = read_manifest(stage.folder, stage=stage.name)
    # Of several inputs of one stage the first is meant, as in Manifest.input: a mean over splits names these after its own inputs.
    before = {ref.stage: ref.digest for ref in reversed(manifest.inputs)}
    differences = describe_differences(manifest.config, stage.config, before, stage.inputs)
    if differences:
        raise InputError(
            f"{stage.folder} holds a finished {stage.name} with other settings ({differences}): "
            "add --force to replace it, or --out DIR to keep both."
        )
    return manifest


def describe_differences(old: dict[str, Any], new: dict[str, Any], old_inputs: dict[str, str], inputs: Mapping[str, Manifest]) -> str:
    """What differs between a run and the one asked for, in words; empty if nothing does."""
    before, now = _flat(old), _flat(new)
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    words = [_difference(key, before.get(key), now.get(key)) for key in keys]
    words += [f"the input {stage} has changed" for stage, manifest in inputs.items() if old_inputs.get(stage) != manifest.digest]
    return "; ".join(words[:6]) + (f"; and {len(words) - 6} more" if len(words) > 6 else "")


def _difference(key: str, before: Any, now: Any) -> str:
    if key.endswith("_sha256"):  # a hash tells a reader nothing
        return (
            f"other {key.removesuffix('_sha256')}" if before and now else f"{key.removesuffix('_sha256')} {'added' if now else 'left out'}"
        )
    return f"{key} was {json.dumps(before)}, now {json.dumps(now)}"


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item})
    return flat


def _begin_or_resume(stage: Stage, command: str, *, force: bool, report: Reporter) -> None:
    state_file = stage.work / STATE
    state = {
        "stage": stage.name,
        "command": command,
        "config": stage.config,
        "inputs": {name: manifest.digest for name, manifest in stage.inputs.items()},
        "places": {ref.stage: ref.path for ref in _input_refs(stage.inputs, stage.folder)},
    }
    if state_file.exists():
        try:
            old = json.loads(state_file.read_text(encoding="utf-8"))
            differences = describe_differences(old["config"], stage.config, old["inputs"], stage.inputs)
            began = old.get("command", stage.name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{state_file} was not written by a run of ours, or is damaged: move it away, or use --out DIR.") from error
        if began != command:
            raise InputError(
                f"{stage.folder} holds what `rspnet {began}` has begun and not finished: type that command again, or use --out DIR; "
                f"{stage.work} can be moved away."
            )
        if not differences:
            # Also under --force: the result is a function of config and inputs, so continuing gives what starting anew would.
            stage.resumed = True
            report.info(f"{stage.name}: continuing the unfinished run in {stage.folder}.")
            return
        if not force:
            raise InputError(
                f"{stage.folder} holds an unfinished {stage.name} with other settings ({differences}): "
                "type its command again to continue it, add --force to start anew, or --out DIR to keep both."
            )
        discard(stage.work)
    stage.work.mkdir(parents=True)
    write_atomic(state_file, json.dumps(state, indent=1))


def _remove_empty(out: Path, created: list[Path]) -> None:
    """Take back the folders this call made if nothing came to lie in them."""
    if out not in created:
        return
    with suppress(OSError):  # not there, or a name that no folder can have
        if any(name != ".lock" for name in os.listdir(out)):
            return
        (out / ".lock").unlink(missing_ok=True)
    for path in created:
        with suppress(OSError):
            path.rmdir()
