"""The section on how the results came about: every stage with its command, what differs from its recipe, figures and hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rspnet_cli.errors import InputError
from rspnet_cli.file_index import INDEX
from rspnet_cli.lineage import Node, flatten, nodes_of, read_lineage
from rspnet_cli.manifest import ENCODER_STAGES, Manifest
from rspnet_cli.report.commands import command_line, command_of, nearest_recipe
from rspnet_cli.report.figure import Cell, Section, Table, command_html, numbers, table_html
from rspnet_cli.report.found import STAGES, Found, all_manifests
from rspnet_cli.report.html import Child, Html, element, join, number

KEY, TITLE = "lineage", "How the results came about"
SHORT_DIGEST = 12


def lineage(found: Found) -> Section:
    """Every finished stage in the work directory and behind it, in the order of the chain, then what is unfinished."""
    parts = [_stage(node, found) for node in _nodes(found)]
    for stage, unfinished in found.unfinished.items():
        body: list[Child] = [element("p", unfinished.words)]
        if stage in ENCODER_STAGES:
            body.append(_recipe(stage, unfinished.config))
        parts.append(
            element("article", element("h3", f"{stage}: unfinished"), *body, command_html(command_line(unfinished.begun, found.path)))
        )
    return Section(KEY, TITLE, element("div", *parts, class_="stages"))


def _nodes(found: Found) -> list[Node]:
    """All nodes once, those of the main chain by stage, each after what it was made from."""
    nodes: dict[str, Node] = {}
    for folder in [*(manifest.folder for manifest in found.stages.values()), *all_manifests(found.path)]:
        try:
            top = read_lineage(folder)
        except InputError:  # found.notes says so for the stages of the chain
            continue
        for node in nodes_of(top):
            nodes.setdefault(str(node.path.resolve()), node)
    order = {stage: place for place, stage in enumerate(STAGES)}
    return sorted(nodes.values(), key=lambda node: (str(node.path).count("random-init"), order.get(node.stage, len(order))))


def _stage(node: Node, found: Found) -> Html:
    digest = element("code", node.digest[:SHORT_DIGEST], title=node.digest)
    manifest = node.manifest
    if manifest is None:
        return element("article", element("h3", node.stage), element("p", "digest ", digest), element("p", f"Not readable: {node.fault}"))
    untrained = " (untrained encoder)" if manifest.config.get("random_init") is True else ""
    facts: list[Child] = [f"made {manifest.created} by rspnet {manifest.tool_version}, digest ", digest]
    for ref in manifest.inputs:
        facts += [f", from {ref.stage} ", element("code", ref.digest[:SHORT_DIGEST], title=ref.digest)]
    if manifest.classes_sha256:
        facts += [", classes ", element("code", manifest.classes_sha256[:SHORT_DIGEST], title=manifest.classes_sha256)]
    return element(
        "article",
        element("h3", f"{_place(manifest, found)}{untrained}"),
        element("p", *facts),
        command_html(command_of(manifest, found.path)),
        _recipe(manifest.stage, manifest.config) if manifest.stage in ENCODER_STAGES and not manifest.is_imported else None,
        _values("Results", flatten(manifest.results)),
        _values("All settings", flatten(manifest.config)),
        _artifacts(manifest),
        _values("Machine and libraries", flatten(_environment(manifest))),
    )


def _place(manifest: Manifest, found: Found) -> str:
    """The folder below the work directory; of a stage elsewhere its name alone."""
    folder, root = manifest.folder.resolve(), found.path.resolve()
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else f"{manifest.stage} (another work directory)"


def _environment(manifest: Manifest) -> dict[str, Any]:
    """Machine and libraries without the paths and the host's name, which concern nobody who gets the report."""
    private = ("host", "videos", "source", "notes", "logs", "sources_sha256", "shards")
    return {key: value for key, value in manifest.environment.items() if key not in private}


def _recipe(stage: str, config: Mapping[str, Any]) -> Html:
    """What a training changed of the packaged recipe nearest to it."""
    recipe = nearest_recipe(stage, config)
    if recipe is None:
        return element("p", "Its settings are none that this version has a recipe for.")
    if not recipe.differing:
        return element("p", "Settings: those of the recipe ", element("code", recipe.name), ", all of them.", class_="recipe")
    header = ["setting", f"recipe {recipe.name}", "this run"]
    rows: list[list[Cell]] = [[key, _words(theirs), element("b", _words(ours))] for key, (theirs, ours) in recipe.differing.items()]
    title = f"Settings that differ from the nearest recipe, {recipe.name}"
    return element("div", element("p", f"{title}:"), table_html(Table(header, rows), title), class_="recipe")


def _values(title: str, values: Mapping[str, Any]) -> Html | None:
    if not values:
        return None
    rows: list[list[Cell]] = [[key, _words(value)] for key, value in values.items()]
    return element("details", element("summary", f"{title} ({len(values)})"), table_html(Table(["name", "value"], rows), title))


def _artifacts(manifest: Manifest) -> Html:
    header = ["file", "bytes", "sha256"]
    few = manifest.few_artifacts
    rows: list[list[Cell]] = [
        [artifact.path, (number(artifact.bytes), artifact.bytes), element("code", artifact.sha256)] for artifact in few
    ]
    if many := manifest.num_files - len(few):
        total = manifest.num_bytes - sum(artifact.bytes for artifact in few)
        rows.append([f"{many:,} files of frames", (number(total), total), f"in {INDEX}"])
    return element(
        "details", element("summary", f"Files and hashes ({len(rows)})"), table_html(Table(header, rows, numbers(header, 0, 2)), "Files")
    )


def _words(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def notes(found: Found) -> Html | None:
    """What a reader should know before the figures."""
    notes = [*(f"{stage} is unfinished. {unfinished.words}" for stage, unfinished in found.unfinished.items()), *found.notes]
    return element("ul", *(element("li", note) for note in notes), class_="notes") if notes else None


def title_of(found: Found) -> str:
    """What the page is called: the work directory's name."""
    return join([found.path.resolve().name])
