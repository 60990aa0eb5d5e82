"""What runs when: flows, the command line, reports. In a notebook:

    import flows
    flows.plan("demo", {"llm.training.steps": 400}).to_run()
    flows.run("demo", {"llm.training.steps": 400})["metrics"]
    flows.lineage().sql("from run_summary")

What they need is imported when they are called: this file is part of every start.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from flows.runs.planning import Prepared
    from foundry_core.pipeline.plan import Plan


def plan(
    pipeline: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    only: Sequence[str] = (),
    force: Sequence[str] = (),
    baseline: str | None = None,
    strict_code: bool = False,
    strict_env: bool = False,
) -> "Plan":
    """What a run would do, and why, as `foundry plan`. pipeline: a name or a YAML file. Raises
    FoundryError for every mistake that can be known before a device is touched."""
    strict = {"strict_code": strict_code, "strict_env": strict_env}
    chosen = {"only": tuple(only), "force": tuple(force), "baseline": baseline}
    return _prepared(pipeline, overrides, **strict, **chosen).plan


def run(
    pipeline: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    only: Sequence[str] = (),
    force: Sequence[str] = (),
    baseline: str | None = None,
    strict_code: bool = False,
    strict_env: bool = False,
    strict_reads: bool = False,
    dispatch: str = "inline",
    quiet: bool = False,
) -> dict[str, Any]:
    """Does it, as `foundry run --json`: {"run_id", "status", "stages", "metrics", ...}. A failed
    stage raises nothing: "status" says so."""
    from flows.cli.commands.run import run_all
    from flows.console import Console

    strict = {
        "strict_code": strict_code,
        "strict_env": strict_env,
        "strict_reads": strict_reads,
    }
    chosen = {"only": tuple(only), "force": tuple(force), "baseline": baseline}
    prepared = _prepared(pipeline, overrides, **strict, **chosen)
    return dict(run_all(prepared, Console(quiet=quiet), dispatch))


def lineage() -> "DuckDBPyConnection":
    """A read-only connection to all tables, views and macros of docs/lineage.md, as of now."""
    from foundry_core.home import home_dir, store_uri
    from foundry_core.lineage.events import EventLog
    from foundry_core.lineage.index import Index
    from foundry_core.lineage.queries import INDEX_NAME, connect
    from foundry_core.store.open import open_store

    Index(home_dir() / INDEX_NAME, EventLog(open_store(store_uri()).events_uri)).advance()
    return connect()


def _prepared(pipeline: str, overrides: Mapping[str, Any] | None, **chosen: Any) -> "Prepared":
    from flows.runs.planning import Request, prepare
    from foundry_core.project import enter

    enter()
    pairs = tuple((overrides or {}).items())
    return prepare(Request(pipeline=str(pipeline), overrides=pairs, **chosen))
