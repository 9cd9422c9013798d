"""The one reader of manifests: what a stage did, with what, and the hashes that prove its files are still those.

`<folder>/manifest.json` is written last and atomically (by `rspnet_cli.stage`), so a folder that has one is whole. Reading checks the
schema, the stage, the digest and every artifact before a caller sees anything; each fault is one sentence and exit code 2.

The many files of an extraction stand in an index (`rspnet_cli.file_index`), which is one artifact. Schema 1 had them in the manifest.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from rspnet_cli.errors import InputError
from rspnet_cli.file_index import INDEX, Entry, artifact_fault, read_index, sample_index
from rspnet_cli.files import sha256_of_json

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
UNFINISHED = "unfinished"
# 1.5 million artifacts of schema 1 fit; a larger file is no manifest of ours and is not parsed.
MAX_MANIFEST_BYTES = 256 * 2**20
# Reading a manifest looks for so many files of an index, and of a longer one for a sample: on a shared disk a million take minutes.
CHECKED_FILES, SAMPLED_FILES = 20_000, 1_000
# Schema 1: the many files are hashed when they are used (pretrain's first epoch) or asked for (`rspnet inspect --verify`), as those of
# an index are.
_HASHED_ON_USE = "frames/"
# The stages that leave an encoder behind.
ENCODER_STAGES = ("pretrain", "finetune")
SHARD_SUFFIX, SHARD_MARK = "-shard", ".shard-"
"""Of a part of a stage (`rspnet_cli.shards`): the ending of its stage's name, by which no later stage takes it for the whole, and what
its folder is called after the result's name."""
_NOT_DIGESTED = {"created", "environment", "digest"}


class Listed(BaseModel):
    """What an index lists: all that is below a folder of the stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    folder: str = Field(pattern="^[^/]+/$")
    files: int = Field(ge=0, strict=True)
    bytes: int = Field(ge=0, strict=True)


class Artifact(BaseModel):
    """A file of a stage, or a folder that counts as one (`path` then ends with a slash)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    """Relative to the manifest's folder, with forward slashes."""
    bytes: int = Field(ge=0, strict=True)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    lists: Listed | None = None
    """Of the index of further files, INDEX."""

    @model_validator(mode="after")
    def _check(self) -> Artifact:
        if self.lists is not None and self.path != INDEX:
            raise ValueError(f"the index of files is {INDEX}")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, values_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `lists` where there is none, as in schema 1: old digests stay what they were."""
        return {key: value for key, value in values_of(self).items() if value is not None}


class InputRef(BaseModel):
    """The manifest a stage read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage: str
    path: str
    """Relative to this manifest's folder."""
    digest: str


class Manifest(BaseModel):
    """What `manifest.json` says; see the module docstring for what has been checked once you hold one."""

    model_config = ConfigDict(extra="forbid")
    schema_version: int = Field(ge=1, strict=True)
    stage: str
    tool_version: str
    created: str
    config: dict[str, Any]
    inputs: list[InputRef]
    artifacts: list[Artifact]
    results: dict[str, Any]
    classes_sha256: str | None
    environment: dict[str, Any]
    digest: str
    _path: Path = PrivateAttr(default=Path())

    @property
    def path(self) -> Path:
        """The manifest file."""
        return self._path

    @property
    def folder(self) -> Path:
        """The stage's folder."""
        return self._path.parent

    @property
    def is_imported(self) -> bool:
        """Whether it is of a training stage that was not run here: its weights are a file's, its training videos are not known."""
        return "import" in self.config

    @property
    def command(self) -> str:
        """The command that made it."""
        if self.stage.endswith(SHARD_SUFFIX):
            return f"{self.stage.removesuffix(SHARD_SUFFIX)} --shard {self.config.get('shard')}"
        return "import-checkpoint" if self.is_imported else self.stage

    @property
    def advice(self) -> str:
        """What to do about a file of it that is not what it was."""
        return f"restore it, or make it anew with `rspnet {self.command} --force`"

    @property
    def listed(self) -> Listed | None:
        """What the index says of the many files together; None where there is none."""
        return next((artifact.lists for artifact in self.artifacts if artifact.lists is not None), None)

    @property
    def few_artifacts(self) -> list[Artifact]:
        """The artifacts but for the frames of schema 1: few enough to be named one by one."""
        return [artifact for artifact in self.artifacts if not artifact.path.startswith(_HASHED_ON_USE)]

    @property
    def num_files(self) -> int:
        """All files, also those of the index."""
        return len(self.artifacts) + (self.listed.files if self.listed else 0)

    @property
    def num_bytes(self) -> int:
        """Size of all files together."""
        return sum(artifact.bytes for artifact in self.artifacts) + (self.listed.bytes if self.listed else 0)

    def indexed(self) -> Iterator[Entry]:
        """What the index lists, sorted by path; nothing where there is none. Raises InputError."""
        return iter(()) if self.listed is None else read_index(self.folder / INDEX)

    def hashes(self) -> Iterator[tuple[str, str]]:
        """(path, sha256) of all files, also those of the index. Raises InputError."""
        yield from ((artifact.path, artifact.sha256) for artifact in self.artifacts)
        yield from ((entry.path, entry.sha256) for entry in self.indexed())

    def computed_digest(self) -> str:
        """sha256 over the canonical JSON of everything but `created`, `environment` and the digest itself."""
        return sha256_of_json(self.model_dump(mode="json", exclude=_NOT_DIGESTED))

    def artifact_path(self, name: str) -> Path:
        """The file of one artifact. Raises InputError when this manifest has no such artifact."""
        if not any(artifact.path == name for artifact in self.artifacts):
            raise InputError(
                f"{self.path} lists no artifact '{name}': it was made by another version or edited; run `rspnet {self.command}` again."
            )
        return self.folder / name

    def input(self, stage: str, *, verify: bool = True) -> Manifest:
        """Read the manifest of an input stage and check that it is the one this stage read. Raises InputError."""
        return self.read_input(self._ref(stage), verify=verify)

    def read_input(self, ref: InputRef, *, verify: bool = True) -> Manifest:
        """The same for one of `inputs`, of which several may be of one stage."""
        manifest = read_manifest(self.place_of(ref), stage=ref.stage, verify=verify)
        if manifest.digest != ref.digest:
            raise InputError(
                f"{manifest.path} is not the {ref.stage} that {self.path} was made from (its digest differs): "
                f"run the {self.stage} stage again on it, or put the old one back."
            )
        return manifest

    def place_of(self, ref: InputRef) -> Path:
        """Where the manifest of one of `inputs` lies now (a work directory can be moved whole)."""
        return Path(os.path.normpath(self.folder / ref.path))

    def _ref(self, stage: str) -> InputRef:
        for ref in self.inputs:
            if ref.stage == stage:
                return ref
        raise InputError(f"{self.path} names no input of stage '{stage}'.")


def manifest_file(path: Path) -> Path:
    """The manifest meant by a path that names it or its folder."""
    # os.path: Path.is_dir raises for a name that is too long.
    return path / MANIFEST if os.path.isdir(path) or path.suffix != ".json" else path  # noqa: PTH112


def read_manifest(
    path: Path, *, stage: str | tuple[str, ...] | None = None, verify: bool = True, verify_all: bool = False, edited: bool = False
) -> Manifest:
    """Read and check a manifest (or the one in a folder).

    stage: the stage it must be of, or several. verify: check that every artifact is there, inside the folder, with its size and hash; of
    the files of an index that they are there with their size, of very many some. verify_all: hash all of those too. edited: take one that
    was edited after it was written, too. Raises InputError for anything amiss.
    """
    file = manifest_file(path)
    stages = (stage,) if isinstance(stage, str) else stage or ()
    manifest = _parse(file, stages[0] if stages else None)
    if stages and manifest.stage not in stages:
        wanted = " or ".join(f"'{name}'" for name in stages)
        whole = manifest.stage.removesuffix(SHARD_SUFFIX)
        first = f"merge {whole}" if whole != manifest.stage and whole in stages else _command_of(stages[0])
        raise InputError(f"{file} is of stage '{manifest.stage}', not {wanted}: run `rspnet {first}` first, or name another manifest.")
    try:
        digest = manifest.computed_digest()
    except (ValueError, RecursionError) as error:  # nested deeper than can be written
        raise InputError(
            f"{file} holds values that no manifest has ({type(error).__name__}): restore it or run the stage again."
        ) from error
    if digest != manifest.digest and not edited:
        raise InputError(f"{file} was edited after it was written (its digest does not match its content): {manifest.advice}.")
    if verify:
        for artifact in manifest.artifacts:
            check_artifact(manifest, artifact, hashed=verify_all or not artifact.path.startswith(_HASHED_ON_USE))
        _check_indexed(manifest, verify_all)
    return manifest


def _check_indexed(manifest: Manifest, verify_all: bool) -> None:
    """Check the files of an index, which is known to be what was written. Raises InputError."""
    listed, index = manifest.listed, manifest.folder / INDEX
    if listed is None:
        return
    complete = verify_all or listed.files <= CHECKED_FILES
    files = size = 0
    for entry in read_index(index) if complete else sample_index(index, SAMPLED_FILES):
        if not entry.path.startswith(listed.folder):
            raise InputError(f"{index} lists {entry.path}, which is not below {listed.folder}: {manifest.advice}.")
        check_artifact(manifest, entry, hashed=verify_all)
        files, size = files + 1, size + entry.bytes
    if complete and (files, size) != (listed.files, listed.bytes):
        raise InputError(f"{index} lists other files than {manifest.path} says: {manifest.advice}.")


def check_artifact(manifest: Manifest, artifact: Artifact | Entry, *, hashed: bool) -> None:
    """Check one artifact's place, kind, size and (if asked) hash. Raises InputError naming the file and the fault."""
    fault = artifact_fault(manifest.folder, artifact, hashed=hashed)
    if fault:
        raise InputError(f"{manifest.folder / artifact.path} {fault}: {manifest.advice}.")


def checked_artifact(manifest: Manifest, name: str) -> Path:
    """The file of one artifact, hashed: for a manifest that was read without verifying all of them. Raises InputError."""
    path = manifest.artifact_path(name)
    check_artifact(manifest, next(artifact for artifact in manifest.artifacts if artifact.path == name), hashed=True)
    return path


def _parse(file: Path, stage: str | None) -> Manifest:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{file} is not a regular file, so it is no manifest: name the manifest.json of a finished stage.")
        if status.st_size > MAX_MANIFEST_BYTES:
            raise InputError(f"{file} has {status.st_size:,} bytes, more than any manifest: name the manifest.json of a finished stage.")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if (file.parent / UNFINISHED).is_dir():
            what = f"The {stage} stage" if stage else "The stage"
            raise InputError(f"{what} in {file.parent} is unfinished: type its command again to continue it, then this one.") from None
        command = f"run `rspnet {stage}` first, or name another folder" if stage else "name the folder of a finished stage"
        if stage and _has_shards(file.parent):
            command = f"its shards are there: put them together with `rspnet merge {stage}`"
        raise InputError(f"There is no {file}: {command}.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InputError(f"{file} cannot be read ({reason}): name the manifest.json of a finished stage.") from error
    try:
        raw = json.loads(text)
        version = raw["schema_version"]
        if not isinstance(version, int):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{file} is no manifest (not JSON with a schema_version): restore it or run the stage again.") from error
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{file} was written by a newer rspnet (schema {version}, tool {raw.get('tool_version')}); this one reads up to "
            f"schema {SCHEMA_VERSION}: upgrade rspnet-cli."
        )
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{file} is no valid manifest ({where}: {first['msg']}): restore it or run the stage again.") from error
    manifest._path = Path(os.path.abspath(file))  # noqa: PTH100 (no resolve(): a linked work directory keeps its name)
    return manifest


def _command_of(stage: str) -> str:
    whole = stage.removesuffix(SHARD_SUFFIX)
    return stage if whole == stage else f"{whole} --shard i/N"


def _has_shards(folder: Path) -> bool:
    with suppress(OSError):
        return any(name.startswith(folder.name + SHARD_MARK) for name in os.listdir(folder.parent))
    return False
