"""`foundry eval import TREE`: published results into the store and the lineage."""

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.commands.common import answer

if TYPE_CHECKING:
    from foundry_core.evaluation.imports import ModelImport

_NO_NAME = "gc removes what no name or run holds: --name TAG names it MODEL@TAG"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tree", type=Path, help="results of LBM Eval or vla-eval: folder or file")
    parser.add_argument(
        "--name", metavar="TAG", help="name each evaluation MODEL@TAG (of one model also NAME@TAG)"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would come in")


def run(options: argparse.Namespace) -> int:
    from flows.cli.commands.upkeep import name_artifact
    from foundry_core.evaluation.imports import import_model
    from foundry_core.evaluation.results.base import read_results
    from foundry_core.home import store_uri
    from foundry_core.lineage.events import EventLog
    from foundry_core.store.disk import naming_disk
    from foundry_core.store.open import open_store

    results = read_results(options.tree)
    names = _names(results.models, options.name)
    store = open_store(store_uri())
    log = EventLog(store.events_uri)
    found = []
    with naming_disk(store.workplace):
        for model in results.models:
            with tempfile.TemporaryDirectory() as folder:
                place = options.tree, results, model, Path(folder)
                found.append(import_model(store, log, *place, dry=options.dry_run))
            if model in names and not options.dry_run:
                name_artifact(store, names[model], found[-1].artifact)
    document = {
        "format": results.format,
        "budget": results.budget,
        "applied": not options.dry_run,
        "models": [one.to_json() | {"name": names.get(one.model)} for one in found],
    }
    return answer(options, document, "\n".join(_lines(found, names, options.dry_run)))


def _names(models: Sequence[str], tag: str | None) -> dict[str, str]:
    """model → its name in the store; FoundryError before anything is imported."""
    from foundry_core.errors import FoundryError
    from foundry_core.store.references import alias_document

    if tag is None:
        return {}
    if "@" in tag and len(models) > 1:
        raise FoundryError(
            f"--name {tag} is one name for {len(models)} models", "give the tag only: MODEL@TAG"
        )
    whole = "@" in tag
    names = {model: tag if whole else f"{model.replace('/', '-')}@{tag}" for model in models}
    for name in names.values():
        alias_document(name)
    return names


def _lines(found: "Sequence[ModelImport]", names: dict[str, str], dry: bool) -> list[str]:
    from flows.cli.commands.upkeep import yaml_line

    lines = []
    for one in found:
        state = "is there already" if one.known else "would come in" if dry else "imported"
        rate = "unknown" if one.score.rate is None else f"{100 * one.score.rate:.1f} %"
        lines.append(
            f"{one.model}: {one.tasks} tasks, {rate} of {one.score.n} episodes{_left_out(one)}: "
            f"{one.artifact.kind}/{one.artifact.key[:12]} {state}"
        )
    if dry:
        return lines
    if not names:
        lines.append(_NO_NAME)
    lines.append("in a pipeline:")
    for one in found:
        way = {"alias": names[one.model]} if names else {"key": one.artifact.key}
        declared = {**way, "kind": one.artifact.kind, "digest": f"sha256:{one.artifact.content}"}
        lines.append(f"  {yaml_line({_stage_name(one.model): {'import': declared}})}")
    return lines


def _stage_name(model: str) -> str:
    """Stages are called as identifiers are."""
    name = re.sub(r"\W", "_", model)
    return name if name.isidentifier() else f"_{name}"


def _left_out(one: "ModelImport") -> str:
    causes = ", ".join(f"{count} {cause}" for cause, count in one.crashes.items())
    crashed = f"{one.score.crashed} crashed ({causes})" if one.score.crashed else ""
    pending = f"{one.score.pending} pending" if one.score.pending else ""
    return "".join(f", {part}" for part in (crashed, pending) if part)
