"""What became of an episode, and what a number of them says about a policy, each in one form.

An episode is one of four things: success, failure, pending (not run yet) or crashed (a fault of the
simulator or of the machine). Only the first two say anything about the policy. A `Score`, counts,
rate and exact interval, is made once, from the episodes of an evaluation. Files, comparisons,
reports and the lineage carry it on; nothing else divides counts or bounds a rate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.files import read_json, write_json, write_json_lines

FILE = "evaluation.json"
_COUNTS = ("n", "successes", "crashed", "pending")


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One episode of one policy.

    success: None while pending and after a crash. seconds: simulated time. recorded_as_failure:
    the file called this crash a failure of the policy.
    """

    task: str
    scenario: int
    success: bool | None
    pending: bool = False
    seconds: float = 0.0
    steps: int | None = None
    failure_message: str | None = None
    seed: int | None = None
    recorded_as_failure: bool = False

    def __post_init__(self) -> None:
        if self.pending and self.success is not None:
            raise FoundryError(
                f"{self.task}, scenario {self.scenario}: pending and success={self.success}",
                "a pending episode has no outcome yet",
            )

    @property
    def key(self) -> tuple[str, int]:
        return self.task, self.scenario

    @property
    def crashed(self) -> bool:
        return self.success is None and not self.pending

    @property
    def status(self) -> str:
        if self.pending:
            return "pending"
        if self.success is None:
            return "crashed"
        return "success" if self.success else "failure"


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


def score_of(episodes: Sequence[EpisodeResult]) -> Score:
    """The score of any episodes; those not run yet are pending, crashes are no outcome."""
    return Score(
        n=sum(e.success is not None for e in episodes),
        successes=sum(bool(e.success) for e in episodes),
        crashed=sum(e.crashed for e in episodes),
        pending=sum(e.pending for e in episodes),
    )


def scores_by_task(episodes: Iterable[EpisodeResult]) -> dict[str, Score]:
    """task → score, in the order in which the tasks come."""
    by_task: dict[str, list[EpisodeResult]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task, []).append(episode)
    return {task: score_of(of_task) for task, of_task in by_task.items()}


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
