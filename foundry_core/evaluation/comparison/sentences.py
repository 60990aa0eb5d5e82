"""A comparison in words: what may be claimed, about what, and what could not have been seen."""

from collections.abc import Mapping

from foundry_core.evaluation.comparison.controls import cautions
from foundry_core.evaluation.comparison.p_values import p_text
from foundry_core.evaluation.comparison.result import (
    Comparison,
    Contrast,
    Difference,
    Overall,
    Sequential,
    TaskTable,
)

ONE_TABLE = "Single tasks and groups are not tested: the design is about all tasks together."
ONE_RUN = "One training run each says nothing about the recipes."
_WORDS = {"better": "is better than", "worse": "is worse than"}


def verdict(comparison: Comparison) -> str:
    """What was found, in words."""
    return " ".join(verdict_sentences(comparison))


def verdict_sentences(comparison: Comparison) -> list[str]:
    """A sentence per label that was held against the base; where all pairs were compared, which of
    them are not separated. Then a sentence per effect of a setting, what a label has no outcome in,
    what looking early saved, and the tasks that a control solves too."""
    base = comparison.base
    if base is not None:
        parts = [f"{_rate(base, comparison.overall[base])}."]
        parts += [sentence(comparison, one) for one in comparison.differences]
        if any(one.separated and one.basis == "none" for one in comparison.differences):
            parts.append(ONE_RUN)
    else:
        separated = sum(one.separated for one in comparison.differences)
        parts = [f"{separated} of {comparison.size} pairs are separated."]
        parts += open_pairs(comparison)
    parts += [contrast_text(one) for one in comparison.contrasts]
    saved = [saved_text(comparison.sequential)] if comparison.sequential else []
    return [*parts, *silences(comparison), *saved, *cautions(comparison)]


def contrast_text(one: Contrast) -> str:
    """'vlm.training.steps: 0, 800: success rises by 20 points along the values (…): …'"""
    points, up = abs(round(100 * one.estimate)), one.estimate > 0
    if one.kind == "trend":
        words = f"success {'rises' if up else 'falls'} by {points} points along the values"
    elif one.kind == "interaction":
        words = f"together {points} points {'more' if up else 'less'} than each alone adds up to"
    else:
        words = f"{points} points {'more' if up else 'less'} success over all other settings"
    if not points:
        words = "no more and no less success"
    interval = f"(95 % interval {100 * one.low:+.0f} to {100 * one.high:+.0f})"
    return f"{one.text}: {words} {interval}: {contrast_claim(one)}."


def contrast_claim(one: Contrast) -> str:
    """What may be said of it, and what could not have been seen."""
    if one.decision == "no verdict":
        return f"no verdict ({one.note})"
    family = f", corrected over {one.size} effects" if one.size > 1 else ""
    p = f"p = {p_text(one.p_corrected)}{family}".replace("= <", "<")
    if not one.separated:
        missed = "this much data could have separated nothing"
        if one.detectable:
            size = f"{100 * one.detectable:.0f} points"
            missed = f"a true one of {size} would have been separated with 80 % power"
        return f"not separated ({p}); {missed}"
    about = {
        "none": "an effect between these trained policies",
        "provisional": "provisional: an effect if all variants' runs scatter alike",
        "recipe": "an effect of the recipes on these tasks",
    }[one.basis]
    return f"{about} ({p})"


def saved_text(one: Sequential) -> str:
    """What looking early saved, and what each label played."""
    played = "; ".join(f"{label} {rounds_text(one, label)}" for label in one.played)
    return (
        f"Judged by its design ({one.spending}, {one.looks} looks), which left out {one.saved} of "
        f"{one.episodes + one.saved} episodes. Rounds played: {played}."
    )


def rounds_text(one: Sequential, label: str) -> str:
    """'10 of 40, stopped at look 1'"""
    stopped = f", stopped at look {one.stopped[label]}" if label in one.stopped else ""
    return f"{one.played[label]} of {one.rounds}{stopped}"


def open_pairs(table: TaskTable, names: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for every pair of a table that is not separated. names: what to call a label."""
    names = names or {}
    return [
        f"{names.get(one.base, one.base)} and {names.get(one.variant, one.variant)}: "
        f"{_claim(table, one)}{f' ({one.note})' if one.note else ''}."
        for one in table.differences
        if not one.separated
    ]


def silences(table: TaskTable, names: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for every label that has no outcome in a task of the table."""
    return [
        f"{(names or {}).get(label, label)}: no outcome in {', '.join(tasks)}."
        for label, tasks in table.silent.items()
    ]


def sentence(table: TaskTable, found: Difference) -> str:
    """What one difference says, and about what."""
    rate = _rate(found.variant, table.overall[found.variant])
    if found.difference is None or found.low is None or found.high is None:
        return f"{rate}: no verdict ({found.note})."
    points, way = abs(round(100 * found.difference)), "above" if found.difference > 0 else "below"
    apart = f"{points} points {way}" if points else "level with"
    interval = f"(95 % interval {100 * found.low:+.0f} to {100 * found.high:+.0f})"
    parts = [f"{rate}, {apart} {found.base} {interval}: {_claim(table, found)}"]
    if found.note:
        parts.append(found.note[0].upper() + found.note[1:])
    return ". ".join(parts) + "."


def _claim(table: TaskTable, found: Difference) -> str:
    p = f"p = {p_text(found.p_corrected)}".replace("= <", "<")
    if found.p_corrected is None:
        p = "by the sequential design"
        if isinstance(table, Comparison) and table.family == "best":
            p += ", which keeps only the best safe"
    elif table.size > 1:
        p += f", corrected over {table.size} comparisons"
    if found.decision == "no verdict":
        return "no verdict"
    if found.decision == "undecided":
        return "not decided yet"
    if found.decision == "not separated":
        missed = (
            f"; a true difference of {100 * found.detectable:.0f} points would have been separated "
            "with 80 % power"
            if found.detectable
            else "; this much data could have separated nothing"
        )
        return f"not separated ({p}){missed}"
    words = f"{_WORDS[found.decision]} {found.base}"
    if found.basis == "recipe":
        return f"recipe “{found.variant}” {words} on these tasks ({p})"
    if found.basis == "provisional":
        return f"provisional: it {words} if all variants' runs scatter alike ({p})"
    return f"these trained policies differ, it {words} ({p})"


def _rate(label: str, overall: Overall) -> str:
    counted = overall.counted
    if counted.rate is None or overall.rate is None:
        return f"“{label}” has no episode with an outcome"
    low, high = counted.interval
    text = (
        f"“{label}” succeeds in {counted.successes} of {counted.n} episodes "
        f"({100 * counted.rate:.0f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
    )
    if abs(counted.rate - overall.rate) > 0.005:
        text += f", {100 * overall.rate:.0f} % with every task weighing the same"
    if counted.pending:
        text += f", {counted.pending} pending"
    return text
