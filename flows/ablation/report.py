"""report.html of an ablation: gathered from the lineage index and the artifacts' files alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from flows.ablation import answers, page
from flows.ablation.verdict_table import by_variant, effects_rows, seeds_text
from flows.reports import held_out
from flows.reports.run_report import gather
from foundry_core.evaluation.comparison.effect_rows import seeds_of
from foundry_core.evaluation.comparison.effects import dose_picture
from foundry_core.evaluation.comparison.plots import response
from foundry_core.evaluation.comparison.report import table_html, write_report
from foundry_core.evaluation.comparison.result import Comparison
from foundry_core.home import home_dir, store_uri
from foundry_core.lineage import queries
from foundry_core.lineage.connection import rows
from foundry_core.store.base import Store
from foundry_core.store.open import open_store

Row = Mapping[str, Any]


def ablation_ids() -> list[str]:
    """Newest first."""
    query = "select ablation_id from ablation order by started_at desc"
    return [row["ablation_id"] for row in queries.sql(queries.connect(), query)]


def write_ablation_report(ablation_id: str) -> Path:
    """report.html in the folder of the ablation's run. FoundryError for an unknown ablation."""
    connection, store = queries.connect(), open_store(store_uri())
    queries.ablation(connection, ablation_id)
    found = answers.shown(connection, store, ablation_id)
    data = gather(ablation_id)
    judged, effects = data.comparison, found["effects"]
    variants = list(by_variant(effects)) or [
        row["variant"] for row in _variants(connection, ablation_id)
    ]
    header, *body = effects_rows(effects)
    sections = [("What changed", table_html(header, body))]
    if judged is not None:
        sections.insert(0, page.certainty(judged, found["missing"]))
        seeds = seeds_of(judged)
        sections.append(("Seeds", f"<p>{seeds_text(seeds)}</p>{_seed_rows(seeds)}"))
    sections += _over_values(judged, effects)
    sections += page.measures(found["quality"], variants)
    sections += page.side_by_side(_folders(connection, store, ablation_id))
    # A table of every training of every seed: the measures by variant and their curves say it.
    shown = {*dict(sections), held_out.TITLE}
    sections += [one for one in data.sections if one[0] not in shown]
    sections += page.curves(data.losses)
    data = replace(
        data,
        title=found["asks"] if found["question"] else f"{found['base_pipeline']}: {found['asks']}",
        run_id=ablation_id,
        sections=sections,
        losses={},
        filmstrips=() if "Where variants differ" in dict(sections) else data.filmstrips,
        lineage_svg=page.merged_graph(
            *queries.graph_of(connection, ablation_id), _users(connection, ablation_id)
        ),
        closing=[page.cost(found, found["quality"]), _repeat(found)],
        commands=_commands(found, effects),
    )
    return write_report(home_dir() / "runs" / ablation_id / "report.html", data)


def _repeat(found: Row) -> tuple[str, str]:
    return page.repeat(found["command"], found["environment"])


def _over_values(judged: Comparison | None, effects: Sequence[Row]) -> list[tuple[str, str]]:
    """A curve for every setting with three values or more: with the runs and a line where the
    verdict has one."""
    doses = {dose.path: dose_picture(dose).svg() for dose in judged.doses} if judged else {}
    drawn = {path: response(path, points) for path, points in responses(effects).items()}
    return [
        (f"Success over {path}", f'<div class="wide">{picture}</div>')
        for path, picture in {**drawn, **doses}.items()
    ]


def _variants(connection: duckdb.DuckDBPyConnection, ablation_id: str) -> list[dict[str, Any]]:
    query = "select variant, runs from ablation_variant where ablation_id = ? order by position"
    return list(rows(connection, query, [ablation_id], of=dict[str, Any]))


def _users(connection: duckdb.DuckDBPyConnection, ablation_id: str) -> dict[str, set[str]]:
    """key → the variants whose seed runs it is part of."""
    query = """select distinct coalesce(s.artifact_key, s.key) as key, r.variant
        from pipeline_run r join run_stage s using (run_id)
        where r.ablation_id = ? and r.variant is not null"""
    found: dict[str, set[str]] = {}
    for row in rows(connection, query, [ablation_id], of=dict[str, Any]):
        found.setdefault(row["key"], set()).add(row["variant"])
    return found


def _folders(
    connection: duckdb.DuckDBPyConnection, store: Store, ablation_id: str
) -> dict[str, Path]:
    """variant → the files of its first seed's evaluation, as far as they are there."""
    found = {}
    for row in _variants(connection, ablation_id):
        query = """select key from run_stage where run_id = ? and kind = 'evaluate'
            order by position limit 1"""
        for stage in rows(connection, query, row["runs"][:1], of=dict[str, Any]):
            artifact = store.read("evaluate", stage["key"])
            if artifact is not None:
                found[row["variant"]] = store.files_path(artifact)
    return found


def responses(effects: Sequence[Row]) -> dict[str, list[tuple[float, float, float, float]]]:
    """Numeric path → (value, success, low, high) of the base and of every variant that changes
    nothing else; paths with three values or more."""
    found: dict[str, dict[float, tuple[float, float, float, float]]] = {}
    bases = [e for e in effects if e["path"] is None and e["success"] is not None]
    for changes in by_variant(effects).values():
        moved = [one for one in changes if one["path"] and one["old"] != one["new"]]
        if len(moved) != 1 or moved[0]["success"] is None:
            continue
        change = moved[0]
        if not (_number(change["old"]) and _number(change["new"])):
            continue
        points = found.setdefault(change["path"], {})
        points[change["new"]] = _point(change["new"], change)
        for base in bases:
            points[change["old"]] = _point(change["old"], base)
    return {path: sorted(points.values()) for path, points in found.items() if len(points) > 2}


def _point(value: float, effect: Row) -> tuple[float, float, float, float]:
    return float(value), effect["success"], effect["low"], effect["high"]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _seed_rows(seeds: Row) -> str:
    table = [
        [name, ", ".join("-" if rate is None else f"{100 * rate:.1f} %" for rate in rates.values())]
        for name, rates in seeds["rates"].items()
    ]
    return table_html(["variant", "success of each seed"], table) if table else ""


def _commands(ablation: Row, effects: Sequence[Row]) -> list[str]:
    name = ablation["ablation_id"]
    commands = [f"foundry lineage sql \"from ablation_effects where ablation_id = '{name}'\""]
    if ablation["comparison_key"]:
        commands.append(f"foundry lineage trace {ablation['comparison_key'][:12]}")
    commands.append(f"foundry ablation show {name}")
    if any(effect["path"] for effect in effects):
        query = f"select runs from ablation_variant where ablation_id = '{name}'"
        commands.append(f'foundry lineage sql "{query}"')
    return commands
