"""`foundry stages`: the stage kinds, what they take, and every field of their recipes.

A kind has up to hundreds of settings, most of them of a part that one recipe of many has; what such
a part holds is told as a count and the command that lists it.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from flows.cli.commands.common import print_json
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError

# A part with more settings is told as their count.
_LISTED = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", help="one kind: its inputs and what can be set")
    parser.add_argument(
        "part", nargs="?", help="settings below this one, e.g. training, model.head"
    )
    parser.add_argument(
        "--all", action="store_true", help="every setting of the kind, of all parts"
    )


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
    elif options.part:
        _show_part(found[options.kind], options.part, options.all)
    elif options.kind:
        _show_kind(found[options.kind], options.all)
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


def _show_kind(kind: dict[str, Any], everything: bool) -> None:
    print(f"{kind['kind']}: {kind['summary']}\ngives {kind['output']}")
    for name, slot in kind["inputs"].items():
        notes = ", ".join(word for word in ("many", "optional") if slot[word])
        print(f"takes {name}: {' or '.join(slot['types'])}{f' ({notes})' if notes else ''}")
    print("draws random numbers: `seed` counts" if kind["seeded"] else "takes no seed")
    print("set with -o STAGE.setting=value; a[b].c is a.c where a is a b:")
    _show_settings(kind["kind"], (), _settings(kind), everything)


def _show_part(kind: dict[str, Any], part: str, everything: bool) -> None:
    """FoundryError where the kind has no such setting."""
    words, known = _words(part), _settings(kind)
    below = [setting for setting in known if _words(setting["path"])[: len(words)] == words]
    if not below:
        parts = {".".join(_words(s["path"])[: len(words)]) for s in known}
        hint = nearest(".".join(words), sorted(parts))
        raise FoundryError(f"{kind['kind']} has no setting {part}", hint)
    _show_settings(kind["kind"], words, below, everything)


def _settings(kind: Mapping[str, Any]) -> list[dict[str, str]]:
    return [*kind["recipe"], *kind["resources"]]


def _words(path: str) -> tuple[str, ...]:
    """model.backbone[vlm].vision → (model, backbone, vlm, vision)."""
    return tuple(path.replace("[", ".").replace("]", "").split("."))


def _show_settings(
    kind: str, above: Sequence[str], settings: Iterable[dict[str, str]], everything: bool
) -> None:
    """The settings below `above`; of a part that is larger than what one reads, how many there are
    and how to see them."""
    from flows.terminal import print_entries

    depth, entries = len(above) + 1, list[tuple[str, str]]()
    for words, together in groupby(settings, lambda s: _words(s["path"])[:depth]):
        group = list(together)
        if everything or len(group) <= _LISTED or len(words) < depth:
            entries += map(_entry, group)
            continue
        own = [setting for setting in group if _words(setting["path"]) == words]
        entries += map(_entry, own)
        part, count = ".".join(words), len(group) - len(own)
        entries.append((f"{part}…", f"{count} settings: foundry stages {kind} {part}"))
    print_entries(entries)


def _entry(setting: Mapping[str, str]) -> tuple[str, str]:
    default = f" = {setting['default']}" if setting["default"] else ""
    note = f"  # {setting['description']}" if setting["description"] else ""
    return setting["path"], f"{setting['type']}{default}{note}"
