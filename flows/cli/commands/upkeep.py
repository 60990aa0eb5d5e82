"""`foundry lineage tag|untag|pin|unpin|gc|import|verify`: what is kept in the store, under which
names."""

import argparse
import functools
from dataclasses import asdict
from typing import Any

import yaml

from flows import processes
from flows.cli.commands.common import answer
from foundry_core.errors import FoundryError
from foundry_core.home import home_dir, store_uri
from foundry_core.lineage.event_types import AliasSet
from foundry_core.lineage.events import EventLog
from foundry_core.pipeline.registry import stage_kind
from foundry_core.store import gc, references
from foundry_core.store.base import Store
from foundry_core.store.disk import naming_disk
from foundry_core.store.manifest import Artifact
from foundry_core.store.open import open_store

ACTIONS = {
    "tag": "name an artifact (name@tag), or list the names",
    "untag": "remove a name",
    "pin": "keep everything a run used, or list the pinned runs",
    "unpin": "let a run's artifacts go to `gc` again",
    "gc": "remove what no name, pinned or recent run reaches (shows only, without --apply)",
    "import": "refer to a folder or s3:// prefix as what a kind of stage makes",
    "verify": "re-read artifacts and events; compare them with their digests, keys and commits",
}


def add_arguments(action: str, parser: argparse.ArgumentParser) -> None:
    if action == "tag":
        parser.add_argument("ref", nargs="?", help="a key, a prefix of one, or a name")
        parser.add_argument("name", nargs="?", help="name@tag")
    if action == "untag":
        parser.add_argument("name", help="name@tag")
    if action in ("pin", "unpin"):
        parser.add_argument("run", nargs="?" if action == "pin" else None, help="a run's id")
    if action == "gc":
        parser.add_argument("--apply", action="store_true", help="remove; without it nothing is")
        parser.add_argument(
            "--keep-runs",
            type=int,
            default=gc.KEEP_RUNS,
            metavar="N",
            help=f"newest runs that keep all they used ({gc.KEEP_RUNS})",
        )
        parser.add_argument(
            "--grace-hours",
            type=float,
            default=gc.GRACE_HOURS,
            metavar="H",
            help=f"younger artifacts stay ({gc.GRACE_HOURS:g})",
        )
        parser.add_argument(
            "--no-trunks",
            action="store_true",
            help="let go of the states that larger budgets would continue from, too",
        )
    if action == "import":
        parser.add_argument("kind", help="the kind of stage it stands for, e.g. train_llm")
        parser.add_argument("place", help="a folder, or s3://bucket/prefix")
        parser.add_argument("--name", metavar="NAME@TAG", help="an alias for it")
    if action == "verify":
        parser.add_argument("refs", nargs="*", metavar="KEY", help="default: everything")
        parser.add_argument("--all", action="store_true", help="everything, which is the default")


def run(options: argparse.Namespace) -> int:
    store = open_store(store_uri())
    actions = (_tag, _untag, _pin, _unpin, _gc, _import, _verify)
    with naming_disk(store.workplace):
        return dict(zip(ACTIONS, actions, strict=True))[options.action](options, store)


def _tag(options: argparse.Namespace, store: Store) -> int:
    if options.ref is None:
        named = references.aliases(store).items()
        rows = [{"name": name, "kind": place.kind, "key": place.key} for name, place in named]
        return _rows(options, rows, "{name}  {kind}/{key:.12}")
    if options.name is None:
        raise FoundryError("a name is missing", "foundry lineage tag KEY name@tag")
    artifact = references.find(store, options.ref)
    name_artifact(store, options.name, artifact)
    row = {"name": options.name, "kind": artifact.kind, "key": artifact.key}
    return _rows(options, [row], "{name} is {kind}/{key:.12}")


def name_artifact(store: Store, name: str, artifact: Artifact) -> None:
    """`name` means the artifact from now on, in the store and in the lineage."""
    references.set_alias(store, name, artifact)
    _tell_alias(store, name, artifact.key)


def _untag(options: argparse.Namespace, store: Store) -> int:
    references.remove_alias(store, options.name)
    _tell_alias(store, options.name, None)
    return _rows(options, [{"name": options.name}], "{name} means nothing any more")


def _tell_alias(store: Store, name: str, key: str | None) -> None:
    EventLog(store.events_uri).append(AliasSet(alias=name, key=key))


def _pin(options: argparse.Namespace, store: Store) -> int:
    if options.run is not None:
        references.pin(store, options.run)
    return _rows(options, [{"run": name} for name in references.pins(store)], "{run} is pinned")


def _unpin(options: argparse.Namespace, store: Store) -> int:
    references.unpin(store, options.run)
    return _rows(options, [{"run": options.run}], "{run} is not pinned any more")


def _gc(options: argparse.Namespace, store: Store) -> int:
    from foundry_core.data.convert.units import unit_cache

    log = EventLog(store.events_uri)
    if options.apply:
        gc.tidy(store, log)
    garbage = gc.find_garbage(
        store,
        keep_runs=options.keep_runs,
        grace_hours=options.grace_hours,
        at_work=functools.partial(_at_work, store),
        keep_trunks=not options.no_trunks,
    )
    artifacts = list(garbage.to_delete)
    if options.apply:
        artifacts = gc.remove(store, log, garbage)
    age = options.grace_hours * 3600
    leftovers = store.sweep(store.leased().__contains__, older_than=age, apply=options.apply)
    if options.apply:
        unit_cache().make_room()  # pieces of what was removed take room of their own now
    rows: list[dict[str, Any]] = [
        {"kind": a.kind, "key": a.key, "bytes": gc.owned_bytes(a), "created": a.created}
        for a in artifacts
    ]
    result = {
        "applied": options.apply,
        "artifacts": rows,
        "bytes": sum(row["bytes"] for row in rows),
        "leftover_bytes": leftovers,
        "kept": garbage.kept,
        "unreadable": list(garbage.unreadable),
    }
    lines = [f"  {row['kind']}/{row['key'][:12]}  {row['bytes'] / 1e6:.1f} MB" for row in rows]
    lines.append(
        f"{'removed' if options.apply else 'would remove'} {len(rows)} artifacts "
        f"({result['bytes'] / 1e6:.1f} MB) and {leftovers / 1e6:.1f} MB that dead attempts left; "
        f"{garbage.kept} artifacts stay"
    )
    untouched = "  not touched, and `--apply` refuses until it is mended: "
    lines += [untouched + problem for problem in garbage.unreadable]
    if not options.apply and (rows or leftovers):
        lines.append("`--apply` removes them")
    return answer(options, result, "\n".join(lines))


def _at_work(store: Store) -> list[str]:
    """Ids of this home's runs that did not end and are not known to be dead."""
    found = processes.entries("run")
    return [run.id for run in found if run.facts.get("store") == store.uri and not run.dead]


def _import(options: argparse.Namespace, store: Store) -> int:
    from foundry_core.store.external import describe, summary
    from foundry_core.store.imports import import_artifact

    kind = stage_kind(options.kind).kind
    if options.name is not None:
        references.alias_document(options.name)
    if options.place:
        store.check_place(options.place)
    log = EventLog(store.events_uri)
    artifact = import_artifact(store, log, describe(kind, options.place))
    if options.name is not None:
        name_artifact(store, options.name, artifact)
    shown = summary(artifact)
    way = "uri" if "://" in artifact.files_at else "path"
    declared = {way: artifact.files_at, "kind": kind, "digest": shown["digest"]}
    lines = [f"{name}: {value}" for name, value in shown.items()]
    lines += ["in a pipeline:", f"  {yaml_line({'stage': {'import': declared}})}"]
    return answer(options, shown | {"name": options.name}, "\n".join(lines))


def yaml_line(document: dict[str, Any]) -> str:
    """A mapping as one line of YAML that reads back as it is."""
    form: dict[str, Any] = {"default_flow_style": True, "sort_keys": False, "width": float("inf")}
    line = yaml.safe_dump(document, allow_unicode=True, **form).strip()
    if "\n" in line:
        line = yaml.safe_dump(document, default_style='"', **form).strip()
    return line[1:-1]


def _verify(options: argparse.Namespace, store: Store) -> int:
    if options.refs and options.all:
        raise FoundryError("both KEY and --all", "give one of them")
    from foundry_core.lineage.queries import INDEX_NAME
    from foundry_core.store.audit import audit

    named = [references.find(store, ref) for ref in options.refs]
    places = [(a.kind, a.key) for a in named] if named else store.artifacts()
    found = audit(store, EventLog(store.events_uri), places, home_dir() / INDEX_NAME)
    corrupt, chains = found.corrupt, found.chains
    lines = [f"{found.artifacts} artifacts read, {len(corrupt)} corrupt"]
    lines += [f"  {one.kind}/{one.key[:12]}: {one.problem} ({one.mend})" for one in corrupt]
    lines.append(
        f"{chains.events} events in {chains.writers} chains, {len(chains.problems)} broken; "
        f"unchained: {chains.unchained} from before"
    )
    lines += [f"  {problem}" for problem in chains.problems]
    shown = {"artifacts": found.artifacts, "corrupt": [asdict(one) for one in corrupt]}
    answer(options, shown | {"events": asdict(chains)}, "\n".join(lines))
    if options.json or not (corrupt or chains.problems):
        return 1 if corrupt or chains.problems else 0
    if corrupt:
        raise FoundryError(f"{len(corrupt)} artifacts are corrupt", corrupt[0].mend)
    raise FoundryError(
        f"the lineage's history in {store.events_uri} was changed",
        "restore the folder from a copy, then `foundry lineage rebuild`; artifacts are not harmed",
    )


def _rows(options: argparse.Namespace, rows: list[dict[str, Any]], form: str) -> int:
    return answer(options, rows, "\n".join(form.format(**row) for row in rows) or "none")
