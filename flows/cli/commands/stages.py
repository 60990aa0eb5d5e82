"""`foundry stages`: the stage kinds, what they take, and every field of their recipes."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from flows.cli.commands.common import print_json
from foundry_core.errors import FoundryError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", help="one kind: its inputs and all that can be set")


def run(options: argparse.Namespace) -> int:
    """1 when a kind is broken: the others are listed all the same."""
    from foundry_core.pipeline.registry import stage_kind, stage_kinds

    broken: dict[str, FoundryError] = {}
    if options.kind:
        found = {options.kind: _described(stage_kind(options.kind))}
    else:
        found, broken = _all_described(stage_kinds(), stage_kind)
    if options.json:
        problems = {n: {"error": e.message, "hint": e.hint} for n, e in broken.items()}
        print_json(found | problems)
    elif options.kind:
        _show_kind(found[options.kind])
    else:
        _show_kinds(found)
    for name, error in broken.items():
        print(f"foundry: kind {name!r} cannot be used: {error}", file=sys.stderr)
    return 1 if broken else 0


def _all_described(
    names: Iterable[str], stage_kind: Callable[[str], Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, FoundryError]]:
    """(what each kind is, why each of the others cannot be used)."""
    found: dict[str, dict[str, Any]] = {}
    broken: dict[str, FoundryError] = {}
    for name in names:
        try:
            found[name] = _described(stage_kind(name))
        except FoundryError as error:
            broken[name] = error
    return found, broken


def _described(stage: Any) -> dict[str, Any]:
    from foundry_core.pipeline.recipe_help import settings_of

    doc = sys.modules[stage.__module__].__doc__ or ""
    return {
        "kind": stage.kind,
        "summary": " ".join(doc.partition("\n\n")[0].split()),
        "output": str(stage.output),
        "inputs": {
            name: {
                "types": [str(kind) for kind in slot.types],
                "many": slot.many,
                "optional": slot.optional,
            }
            for name, slot in stage.inputs.items()
        },
        "seeded": stage.seeded,
        "recipe": [asdict(setting) for setting in settings_of(stage.Recipe)],
        "resources": [asdict(setting) for setting in settings_of(stage.Resources, "resources.")],
    }


def _show_kinds(found: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    from flows.console import print_table

    table = Table("kind", "takes", "gives", "what it does")
    for name, kind in found.items():
        table.add_row(name, ", ".join(kind["inputs"]), kind["output"], kind["summary"])
    print_table(table)


def _show_kind(kind: dict[str, Any]) -> None:
    from flows.terminal import print_entries

    print(f"{kind['kind']}: {kind['summary']}\ngives {kind['output']}")
    for name, slot in kind["inputs"].items():
        notes = ", ".join(word for word in ("many", "optional") if slot[word])
        print(f"takes {name}: {' or '.join(slot['types'])}{f' ({notes})' if notes else ''}")
    print("draws random numbers: `seed` counts" if kind["seeded"] else "takes no seed")
    print("set with -o STAGE.setting=value; a[b].c is a.c where a is a b:")
    print_entries(map(_entry, [*kind["recipe"], *kind["resources"]]))


def _entry(setting: Mapping[str, str]) -> tuple[str, str]:
    default = f" = {setting['default']}" if setting["default"] else ""
    note = f"  # {setting['description']}" if setting["description"] else ""
    return setting["path"], f"{setting['type']}{default}{note}"
