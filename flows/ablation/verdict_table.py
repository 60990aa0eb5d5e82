"""The verdict of an ablation as a table: what every variant changes, how often it succeeds, the
decision. Of rows of ablation_effects, one per variant and change; nothing heavy is imported."""

from collections.abc import Mapping, Sequence
from typing import Any

from foundry_core.evaluation.comparison.p_values import p_text

Row = Mapping[str, Any]


def by_variant(effects: Sequence[Row]) -> dict[str, list[Row]]:
    """variant → its rows, in their order."""
    variants: dict[str, list[Row]] = {}
    for effect in effects:
        variants.setdefault(effect["variant"], []).append(effect)
    return variants


def changes_text(changes: Sequence[Row]) -> str:
    """'llm.training.steps: 200 → 100; ...' of a variant's rows; nothing of the base's."""
    return "; ".join(
        f"{one['path']}: {one['old']} → {one['new']}" for one in changes if one["path"]
    )


def p_cell(row: Row) -> str:
    """Nothing where nothing was tested."""
    return "" if row["p_value"] is None else p_text(row["p_value"])


def effects_rows(effects: Sequence[Row]) -> list[list[str]]:
    """Header and one row per variant: what it changes, how often it succeeds, the decision."""
    table = [["variant", "change", "success", "95 % interval", "p (Holm)", "decision", "letters"]]
    for name, changes in by_variant(effects).items():
        first = changes[0]
        known = first["success"] is not None
        rate = f"{100 * first['success']:.1f} % of {first['n']}" if known else "-"
        interval = f"{100 * first['low']:.1f} to {100 * first['high']:.1f} %" if known else "-"
        said = [p_cell(first), first["decision"], first["letters"] or ""]
        table.append([name, changes_text(changes), rate, interval, *said])
    return table


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
    if seeds["deviation"] == 0:  # an interval from 0 to 0 would sound certain
        scatter = (
            "Equal recipes with other seeds all had the same rate: too few episodes were played to "
            "see how much seeds scatter. "
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
