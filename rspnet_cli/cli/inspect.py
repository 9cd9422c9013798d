"""`rspnet inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rspnet_cli.cli.options import AsJson, Quiet, reporter, show_json

if TYPE_CHECKING:
    from rich.tree import Tree

    from rspnet_cli.lineage import Node
    from rspnet_cli.manifest import Manifest
    from rspnet_cli.stages.inspect import Difference

_ARTIFACTS_SHOWN = 8


def inspect(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Manifest or folder of a finished stage.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every file of every stage again; exit code 2 if anything differs.")
    ] = False,
    diff: Annotated[
        Path | None, typer.Option("--diff", metavar="OTHER", help="Show what differs from another result of the stage.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show how a result came about: every stage behind it with its settings, hashes and figures.

    --json prints {"lineage": the manifest with its inputs nested, "verified": {"files", "bytes", "faults"} with --verify, "differences":
    [{"stage", "key", "left", "right"}] with --diff}. Among these is "place of input ..." where it may explain the others.
    """
    from rspnet_cli.errors import InputError
    from rspnet_cli.lineage import lineage_json, read_lineage
    from rspnet_cli.stages import inspect as stage

    node = read_lineage(manifest)
    differences = None if diff is None else stage.compare_lineages(node, read_lineage(diff))
    verified = stage.verify_lineage(node, reporter(quiet)) if verify else None
    if as_json:
        document: dict[str, Any] = {"lineage": lineage_json(node)}
        if verified is not None:
            document["verified"] = vars(verified)
        if differences is not None:
            document["differences"] = [vars(item) for item in differences]
        show_json(document)
    elif differences is not None:
        _show_differences(differences)
    else:
        _show_lineage(node)
    if verified is not None and not as_json:
        typer.echo(f"{verified.files:,} files, {verified.bytes:,} bytes hashed again; files at fault: {len(verified.faults)}.")
    if verified is not None and verified.faults:
        for fault in verified.faults:
            typer.echo(fault, err=True)
        raise InputError(
            f"Files behind {node.path} that are not what they were: {len(verified.faults)}. Restore them, or run their stages again."
        )


def _show_differences(differences: list[Difference]) -> None:
    from rspnet_cli.cli.tables import show_table

    def text(value: Any) -> str:
        return (
            "-" if value is None else value[:16] if isinstance(value, str) and len(value) == 64 else json.dumps(value, ensure_ascii=False)
        )

    if not differences:
        typer.echo("No differences in settings, figures, artifacts, versions or inputs.")
        return
    if all(item.is_place for item in differences):
        places = "; ".join(f"{item.stage}: {item.left} here, {item.right} there" for item in differences)
        typer.echo(f"Equal but for where their inputs lie, which manifests name by relative paths and digests hold ({places}).")
        return
    rows = [[item.stage, item.key, text(item.left), text(item.right)] for item in differences]
    title = f"{len(differences)} difference{'s' if len(differences) > 1 else ''}"
    show_table(title, ["stage", "what", "this", "other"], rows, [], figures=False)
    if any(item.is_place for item in differences):
        typer.echo("Digests hold where inputs lie, and features.safetensors holds digests: its bytes may differ by this alone.")


def _show_lineage(node: Node) -> None:
    from rspnet_cli.cli.tables import stdout_console

    stdout_console().print(_tree(node, set()))


def _tree(node: Node, shown: set[Path]) -> Tree:
    from rich.markup import escape
    from rich.tree import Tree

    tree = Tree(escape(f"{node.stage}  {node.path}  digest {node.digest[:16]}"))
    if node.manifest is None:
        tree.add(escape(f"not readable: {node.fault}"))
    elif node.path in shown:
        tree.add("(shown above)")
    else:
        shown.add(node.path)
        for line in _lines(node.manifest):
            tree.add(escape(line))
        for below in node.inputs:
            tree.add(_tree(below, shown))
    return tree


def _lines(manifest: Manifest) -> list[str]:
    """What the tree says of a stage: when and with what, settings by section, figures, files."""
    from rspnet_cli.lineage import flatten

    def rounded(value: Any) -> Any:
        return [rounded(item) for item in value] if isinstance(value, list) else round(value, 6) if isinstance(value, float) else value

    def words(values: dict[str, Any]) -> str:
        return ", ".join(f"{key} {json.dumps(rounded(value), ensure_ascii=False)}" for key, value in flatten(values).items())

    lines = [f"made {manifest.created} by rspnet {manifest.tool_version}"]
    sections = {key: value for key, value in manifest.config.items() if isinstance(value, dict)}
    plain = {key: value for key, value in manifest.config.items() if key not in sections}
    lines += [f"config: {words(plain)}"] if plain else []
    lines += [f"config {name}: {words(section)}" for name, section in sections.items()]
    lines.append(f"results: {words(manifest.results)}")
    if manifest.classes_sha256:
        lines.append(f"classes: {manifest.classes_sha256[:16]}")
    lines.append(f"artifacts: {manifest.num_files:,}, {manifest.num_bytes:,} bytes")
    named = manifest.few_artifacts
    lines += [f"  {artifact.path}  {artifact.bytes:,} bytes  {artifact.sha256[:16]}" for artifact in named[:_ARTIFACTS_SHOWN]]
    if len(named) > _ARTIFACTS_SHOWN:
        lines.append(f"  and {len(named) - _ARTIFACTS_SHOWN} more")
    return lines
