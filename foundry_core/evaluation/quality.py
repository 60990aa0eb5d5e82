"""How good a model is before it acts: measures with intervals, and the answers behind them.

A `Measure` is made once, from the answers of an exam, and carried on as it is: quality.json,
tables, reports and the lineage divide nothing again. A share of answers has Clopper and Pearson's
exact interval; a mean, or a ratio of sums, Student's, of the ratio linearised (each answer, or each
document, is drawn alone).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foundry_core.config.validation import read_as
from foundry_core.files import write_json, write_json_lines

FILE = "quality.json"
ANSWERS = "answers.jsonl"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number about a model. task: what it was asked. name: what is measured, its unit at the end
    (`pixel_error_px`). n: answers, or documents, that it is made of. value: None of none. [low,
    high]: 95 %; None where one answer says nothing of others."""

    task: str
    name: str
    value: float | None
    n: int
    low: float | None = None
    high: float | None = None


def share(task: str, name: str, hits: Iterable[bool]) -> Measure:
    """Of answers that are right."""
    from foundry_core.evaluation.statistics.intervals import clopper_pearson

    found = [bool(hit) for hit in hits]
    if not found:
        return Measure(task=task, name=name, value=None, n=0)
    low, high = clopper_pearson(sum(found), len(found))
    value = sum(found) / len(found)
    return Measure(task=task, name=name, value=value, n=len(found), low=low, high=high)


def mean(task: str, name: str, values: Sequence[float], *, most: float | None = None) -> Measure:
    """Of one number per answer."""
    return ratio(task, name, values, [1.0] * len(values), most=most)


def ratio(
    task: str,
    name: str,
    sums: Sequence[float],
    weights: Sequence[float],
    *,
    most: float | None = None,
) -> Measure:
    """Σ sums / Σ weights, of one pair per answer: bits and bytes of documents, say. None is below
    zero, nor, where `most` is given, above that, and the interval ends there."""
    n, whole = len(sums), math.fsum(weights)
    if not n or not whole:
        return Measure(task=task, name=name, value=None, n=n)
    value = math.fsum(sums) / whole
    low = high = None
    if n > 1:
        from scipy import special

        squares = math.fsum((s - value * w) ** 2 for s, w in zip(sums, weights, strict=True))
        error = math.sqrt(squares * n / (n - 1)) / whole
        reach = float(special.stdtrit(n - 1, 0.975)) * error
        low, high = max(0.0, value - reach), value + reach
        high = high if most is None else min(most, high)
    return Measure(task=task, name=name, value=value, n=n, low=low, high=high)


def mapped(measure: Measure, name: str, function: Any) -> Measure:
    """A rising function of a measure, which maps its interval, too."""

    def of(value: float | None) -> float | None:
        return None if value is None else float(function(value))

    return Measure(
        task=measure.task,
        name=name,
        n=measure.n,
        value=of(measure.value),
        low=of(measure.low),
        high=of(measure.high),
    )


def write_quality(
    out: Path,
    records: Path,
    facts: Mapping[str, Any],
    measures: Sequence[Measure],
    answers: Iterable[Mapping[str, Any]],
) -> dict[str, float]:
    """Writes what every stage that makes a Quality leaves: quality.json (the facts beside
    `measures`), answers.jsonl (a row per answer) and records/measures.jsonl, which the lineage
    reads. Returns the stage's metrics: <task>/<name>."""
    write_json(out / FILE, {**facts, "measures": [asdict(one) for one in measures]})
    write_json_lines(out / ANSWERS, answers)
    write_measures(records, measures)
    return {f"{m.task}/{m.name}": m.value for m in measures if m.value is not None}


def write_measures(records: Path, measures: Sequence[Measure]) -> None:
    """records/measures.jsonl, which the lineage reads; no file of no measure."""
    if measures:
        write_json_lines(records / "measures.jsonl", map(asdict, measures))


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What quality.json says of a model. facts beside the measures are for people."""

    measures: Sequence[Measure]


def read_quality(folder: Path) -> Quality:
    """Of a Quality's folder. FoundryError for a file of another form."""
    found: Quality = read_as(Quality, folder / FILE, "run its stage with --force")
    return found


def interval_text(measure: Measure) -> str:
    """`0.612 [0.571, 0.652], n 500`: a number never stands without its interval and count."""
    if measure.value is None:
        return "no answer"
    text = f"{measure.value:.4g}"
    if measure.low is not None and measure.high is not None:
        text += f" [{measure.low:.4g}, {measure.high:.4g}]"
    return f"{text}, n {measure.n}"
