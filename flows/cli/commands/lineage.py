"""`foundry lineage ...`: questions to the index, and its upkeep."""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flows import signals
from flows.cli.commands import upkeep
from flows.cli.commands.common import answer, print_json
from foundry_core.errors import FoundryError
from foundry_core.home import home_dir, store_uri

_QUESTIONS = {
    "runs": "the latest runs",
    "show": "one run or artifact",
    "trace": "from a result to every byte, setting and line of code behind it",
    "why": "why an artifact was built or reused",
    "diff": "what differs between two runs or artifacts",
    "sql": "any query, e.g. \"FROM upstream('<key>')\"",
    "graph": "the graph of a run or of an artifact's ancestry",
    "export": "tables as CSV or Parquet, or OpenLineage events",
    "rebuild": "recreate lineage.duckdb from the store",
}


# After its time a query is interrupted; one that is not over then is killed.
_PATIENCE_SECONDS = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (_QUESTIONS | upkeep.ACTIONS).items():
        sub = actions.add_parser(name, help=summary, description=summary)
        sub.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON"
        )
        if name in ("show", "trace", "why", "graph"):
            sub.add_argument("ref", help="a run id, a key or a prefix of one, or an alias")
        if name == "trace":
            whole = "with every setting, file and digest"
            sub.add_argument("--all", action="store_true", help=whole)
        if name == "diff":
            sub.add_argument("old", help="a run's id")
            sub.add_argument("new", help="another run's id")
        if name == "sql":
            sub.add_argument("query", help="one SELECT or FROM statement of DuckDB")
        if name == "runs":
            sub.add_argument("--limit", type=int, default=20, help="how many, newest first (20)")
        if name == "graph":
            forms = ("mermaid", "dot", "svg")
            sub.add_argument("--format", choices=forms, default="mermaid", help="of the drawing")
        if name == "export":
            sub.add_argument("folder", type=Path, help="new folder for the tables")
            forms = ("csv", "parquet", "openlineage")
            sub.add_argument("--format", choices=forms, default="csv", help="of the tables")
        upkeep.add_arguments(name, sub)


def run(options: argparse.Namespace) -> int:
    if options.action in upkeep.ACTIONS:
        return upkeep.run(options)
    from foundry_core.lineage import queries
    from foundry_core.lineage.events import EventLog
    from foundry_core.lineage.index import Index
    from foundry_core.store.open import open_store

    store = open_store(store_uri())
    log = EventLog(store.events_uri)
    if options.action == "rebuild":
        return _rebuild(options, Index(home_dir() / queries.INDEX_NAME, log), store)
    with contextlib.ExitStack() as open_till_then:
        folder = advanced(log)
        if folder is None:
            folder = Path(open_till_then.enter_context(tempfile.TemporaryDirectory()))
            Index(folder / queries.INDEX_NAME, log).advance()
        connection = open_till_then.enter_context(queries.connect(folder))
        return _answer_from(connection, options)


def advanced(log: Any) -> Path | None:
    """The home, its index brought up to date. Where nothing can be written, the index is read as it
    is; None where there is none, and no home either: a question makes none."""
    import duckdb

    from foundry_core.lineage import queries
    from foundry_core.lineage.index import Index

    home = home_dir()
    if not home.is_dir():
        return None
    try:
        Index(home / queries.INDEX_NAME, log).advance()
    except (OSError, duckdb.IOException) as error:
        if not (home / queries.INDEX_NAME).exists():
            return None
        print(f"foundry: the lineage index is shown as it was last: {error}", file=sys.stderr)
    return home


def _answer_from(connection: Any, options: argparse.Namespace) -> int:
    from foundry_core.lineage import graph, queries

    if options.action == "graph":
        nodes, edges = queries.graph_of(connection, options.ref)
        print(getattr(graph, options.format)(nodes, edges))
        return 0
    if options.action == "export":
        return _export(options, connection)
    answer = _answer(options, connection, queries)
    if options.json:
        print_json(answer)
    else:
        _render(options, answer)
    return 0


def _rebuild(options: argparse.Namespace, index: Any, store: Any) -> int:
    """From the events; then what the store holds without an event, because its writer was killed
    between the commit and the event. 1 when something could not be read."""
    from foundry_core.lineage.rebuild import reconcile
    from foundry_core.store.references import aliases

    try:
        advance = index.rebuild()
        healed = reconcile(index, store, lambda: aliases(store))
    except OSError as error:
        raise FoundryError(
            f"the lineage index {index.path} cannot be rebuilt ({error})",
            "FOUNDRY_HOME must be a folder that can be written, with room for it",
        ) from None
    unreadable = [*advance.unreadable, *healed.unreadable]
    record = {
        "events": advance.events,
        "seconds": round(advance.seconds, 3),
        "artifacts without an event, now told": len(healed.committed),
        "artifacts that are gone, now told": len(healed.removed),
        "names that had moved, now told": len(healed.aliases),
    }
    _show(options, record | ({"unreadable": unreadable} if unreadable else {}))
    return 1 if unreadable else 0


def _answer(options: argparse.Namespace, connection: Any, queries: Any) -> Any:
    action = options.action
    if action == "runs":
        return queries.runs(connection, options.limit)
    if action == "sql":
        from foundry_core.lineage import statements

        # One call of a function over huge texts looks at no interrupt.
        with signals.killed_after(statements.SECONDS + _PATIENCE_SECONDS, "the query cannot end"):
            return queries.sql(connection, options.query)
    if action == "diff":
        return queries.diff(connection, options.old, options.new)
    return getattr(queries, action)(connection, options.ref)


def _render(options: argparse.Namespace, answer: Any) -> None:
    from flows.terminal import stdout
    from foundry_core.lineage import render

    shown: dict[str, Callable[[Any], Any]] = {
        "runs": render.runs_table,
        "trace": lambda roots: render.trace_tree(roots, whole=options.all, changed=_changed),
        "why": render.why_tree,
        "show": render.record,
        "diff": lambda changes: render.diff_tree(changes, options.old, options.new),
    }
    show = shown.get(options.action, render.table_of)
    empty = "nothing"
    if options.action == "runs":
        empty = f"no run in {home_dir()}: each stands where it was asked for (or in FOUNDRY_HOME)"
    stdout().print(show(answer) if answer or options.action == "diff" else empty)


def _changed(kind: str, recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a recipe that differ from its kind's defaults; all of them where the kind is
    not here, or knows other settings by now."""
    from foundry_core.config.validation import validate
    from foundry_core.pipeline.registry import stage_kind

    try:
        found = validate(stage_kind(kind).Recipe, recipe, kind)
    except FoundryError:
        return recipe
    differing: dict[str, Any] = found.model_dump(mode="json", exclude_defaults=True)
    return differing


def _export(options: argparse.Namespace, connection: Any) -> int:
    from foundry_core.lineage import export

    if options.format == "openlineage":
        path = options.folder / "openlineage.jsonl"
        count = export.write_openlineage(export.openlineage(connection), path)
        return _show(options, {"written": [str(path)], "events": count})
    written = export.export_tables(connection, options.folder, options.format)
    return _show(options, {"written": [str(path) for path in written]})


def _show(options: argparse.Namespace, record: dict[str, Any]) -> int:
    lists = {name: "\n  ".join(["", *v]) for name, v in record.items() if isinstance(v, list)}
    lines = [f"{name}:{lists.get(name, f' {value}')}" for name, value in record.items()]
    return answer(options, record, "\n".join(lines))
