"""What a number of episodes says about a policy: counts, rate and exact interval, in one form.

A `Score` is made once, from the episodes of an evaluation. Files, comparisons, reports and the
lineage carry it on; nothing else divides counts or bounds a rate.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.files import read_json, write_json, write_json_lines

FILE = "evaluation.json"
_COUNTS = ("n", "successes", "crashed", "pending")


@dataclass(frozen=True, kw_only=True)
class Score:
    """n: episodes with an outcome, of which `successes` succeeded. crashed, pending: episodes
    without one, because of a fault of simulator or machine, or because they were not run yet."""

    n: int = 0
    successes: int = 0
    crashed: int = 0
    pending: int = 0

    def __post_init__(self) -> None:
        for name in _COUNTS:
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise FoundryError(f"{name} = {count!r} is no count of episodes")
        if self.successes > self.n:
            raise FoundryError(f"{self.successes} successes in {self.n} episodes")

    def __add__(self, other: "Score") -> "Score":
        return Score(**{name: getattr(self, name) + getattr(other, name) for name in _COUNTS})

    @property
    def rate(self) -> float | None:
        """None while there is no outcome."""
        return self.successes / self.n if self.n else None

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's exact 95 % interval of the rate; (0, 1) without an outcome.
        Computed when it is first asked for: scipy takes half a second to import."""
        from foundry_core.evaluation.statistics.intervals import clopper_pearson

        return clopper_pearson(self.successes, self.n)

    def to_json(self) -> dict[str, Any]:
        """{n, successes, crashed, pending, rate, low, high}."""
        low, high = self.interval
        counts = {name: getattr(self, name) for name in _COUNTS}
        return counts | {"rate": self.rate, "low": low, "high": high}

    @classmethod
    def from_json(cls, data: Any) -> "Score":
        """From the counts; what follows from them is computed again. FoundryError for anything
        but the four counts."""
        missing = [name for name in _COUNTS if not isinstance(data, Mapping) or name not in data]
        if missing:
            raise FoundryError(f"a score lacks {', '.join(missing)}: {data!r}")
        return cls(**{name: data[name] for name in _COUNTS})


def total(scores: Iterable[Score]) -> Score:
    """Their sum; nothing at all of none."""
    return sum(scores, Score())


def write_scores(
    out: Path, records: Path, scores: Mapping[str, Score], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes what every stage that makes an Evaluation leaves; returns its metrics.

    scores: task → score. facts: more fields of evaluation.json, beside `tasks` and `total`.
    records/scores.jsonl, which the lineage reads, has a row per task and one for all, whose task
    is "". Metrics: success_rate (None without an outcome), the counts, success_rate/<task>.
    """
    whole = total(scores.values())
    tasks = {task: score.to_json() for task, score in scores.items()}
    write_json(out / FILE, {**facts, "tasks": tasks, "total": whole.to_json()})
    rows = [*sorted(tasks.items()), ("", whole.to_json())]
    write_json_lines(records / "scores.jsonl", ({"task": task, **row} for task, row in rows))
    rates = {f"success_rate/{task}": score.rate for task, score in scores.items() if score.n}
    counts = {name: getattr(whole, name) for name in _COUNTS}
    return {"success_rate": whole.rate, **counts, **rates}


def read_scores(folder: Path) -> dict[str, Score]:
    """task → score of an Evaluation's folder. FoundryError for a file of another form."""
    document = read_json(folder / FILE)
    tasks = document.get("tasks") if isinstance(document, dict) else None
    if not isinstance(tasks, dict):
        raise FoundryError(
            f"{folder / FILE} has no scores by task", "evaluate again: the file is of another form"
        )
    try:
        return {task: Score.from_json(score) for task, score in tasks.items()}
    except FoundryError as error:
        raise FoundryError(f"{folder / FILE}: {error}", "evaluate again") from None
