"""report.html of an ablation: gathered from the lineage index and the artifacts' files alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.reports.run_report import gather
from foundry_core.evaluation.comparison.plots import response
from foundry_core.evaluation.comparison.report import table_html, write_report
from foundry_core.evaluation.comparison.sentences import p_text
from foundry_core.evaluation.comparison.verdict import seeds_of
from foundry_core.home import home_dir
from foundry_core.lineage import queries

Row = Mapping[str, Any]


def ablation_ids() -> list[str]:
    """Newest first."""
    query = "select ablation_id from ablation order by started_at desc"
    return [row["ablation_id"] for row in queries.sql(queries.connect(), query)]


def write_ablation_report(ablation_id: str) -> Path:
    """report.html in the folder of the ablation's run. FoundryError for an unknown ablation."""
    connection = queries.connect()
    ablation = queries.ablation(connection, ablation_id)
    effects = queries.ablation_effects(connection, ablation_id)
    data = gather(ablation_id)
    header, *body = effects_rows(effects)
    sections = [("Variants", table_html(header, body))]
    sections += [
        (f"Success over {path}", f'<div class="wide">{response(path, points)}</div>')
        for path, points in responses(effects).items()
    ]
    if data.comparison is not None:
        seeds = seeds_of(data.comparison)
        sections.append(("Seeds", f"<p>{seeds_text(seeds)}</p>{_seed_rows(seeds)}"))
    data = replace(
        data,
        title=f"{ablation['base_pipeline']}: what each change does",
        run_id=ablation_id,
        sections=[*sections, *data.sections],
        commands=_commands(ablation, effects),
    )
    return write_report(home_dir() / "runs" / ablation_id / "report.html", data)


def effects_rows(effects: Sequence[Row]) -> list[list[str]]:
    """Header and one row per variant: what it changes, how often it succeeds, the decision."""
    rows = [["variant", "change", "success", "95 % interval", "p (Holm)", "decision", "letters"]]
    for name, changes in _by_variant(effects).items():
        first = changes[0]
        change = "; ".join(
            f"{one['path']}: {one['old']} → {one['new']}" for one in changes if one["path"]
        )
        known = first["success"] is not None
        rate = f"{100 * first['success']:.1f} % of {first['n']}" if known else "-"
        interval = f"{100 * first['low']:.1f} to {100 * first['high']:.1f} %" if known else "-"
        p = p_text(first["p_value"]) if first["p_value"] is not None else ""
        rows.append([name, change, rate, interval, p, first["decision"], first["letters"] or ""])
    return rows


def _by_variant(effects: Sequence[Row]) -> dict[str, list[Row]]:
    variants: dict[str, list[Row]] = {}
    for effect in effects:
        variants.setdefault(effect["variant"], []).append(effect)
    return variants


def responses(effects: Sequence[Row]) -> dict[str, list[tuple[float, float, float, float]]]:
    """Numeric path → (value, success, low, high) of the base and of every variant that changes
    nothing else; paths with three values or more."""
    found: dict[str, dict[float, tuple[float, float, float, float]]] = {}
    bases = [e for e in effects if e["path"] is None and e["success"] is not None]
    for changes in _by_variant(effects).values():
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


def seeds_text(seeds: Row) -> str:
    """What the seeds say about noise, and what the verdict is therefore about."""
    if seeds["deviation"] is None:
        return (
            "One seed per variant: the verdict is about the policies that were trained. Whether "
            "the recipes differ, only several seeds can show: three runs each are the least."
        )
    scatter = (
        f"Equal recipes with other seeds scatter by {_points(seeds['deviation'])} points "
        f"(standard deviation; 95 % interval {_points(seeds['low'])} to {_points(seeds['high'])}). "
    )
    if seeds["fewest"] == 2:
        return scatter + (
            "With two seeds the verdict is provisional: it takes the scatter of all variants to be "
            "alike. Three runs each would make it one about the recipes."
        )
    return scatter + (
        "The verdict is about recipes: a difference counts where it is larger than that scatter "
        "and the episodes say so too."
    )


def _points(rate: float) -> str:
    return f"{100 * rate:.1f}"


def _seed_rows(seeds: Row) -> str:
    rows = [
        [name, evaluation, "-" if rate is None else f"{100 * rate:.1f} %"]
        for name, rates in seeds["rates"].items()
        for evaluation, rate in rates.items()
    ]
    return table_html(["variant", "seed", "success"], rows) if rows else ""


def _commands(ablation: Row, effects: Sequence[Row]) -> list[str]:
    name = ablation["ablation_id"]
    commands = [f"foundry lineage sql \"from ablation_effects where ablation_id = '{name}'\""]
    if ablation["comparison_key"]:
        commands.append(f"foundry lineage trace {ablation['comparison_key'][:12]}")
    if any(effect["path"] for effect in effects):
        query = f"select runs from ablation_variant where ablation_id = '{name}'"
        commands.append(f'foundry lineage sql "{query}"')
    return commands
