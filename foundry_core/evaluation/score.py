"""What became of an episode, and what a number of them says about a policy, each in one form.

An episode is one of four things: success, failure, pending (not run yet) or crashed (a fault of the
simulator or of the machine). Only the first two say anything about the policy. A `Score`, counts,
rate and exact interval, is made once, from the episodes of an evaluation. Files, comparisons,
reports and the lineage carry it on; nothing else divides counts or bounds a rate.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.evaluation.crashes import crash_cause, crash_causes
from foundry_core.evaluation.design import Design
from foundry_core.evaluation.facts import FILE, EvaluationFacts
from foundry_core.files import read_json, write_json, write_json_lines

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

    @property
    def rate_with_crashes(self) -> float | None:
        """The rate if every crash were a failure of the policy."""
        done = self.n + self.crashed
        return self.successes / done if done else None

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's exact 95 % interval of the rate; (0, 1) without an outcome.
        Computed when it is first asked for: many scores are only added."""
        from foundry_core.evaluation.statistics.intervals import clopper_pearson

        return clopper_pearson(self.successes, self.n)

    def sentence(self) -> str:
        """'success 5 of 20, 25.0 % (95 % interval 8.7 to 49.1), 2 crashed'."""
        left = [
            f"{count} {name}" for name in ("crashed", "pending") if (count := getattr(self, name))
        ]
        if self.rate is None:
            return ", ".join(["success unknown: no episode came to its end", *left])
        low, high = self.interval
        rate = f"{100 * self.rate:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"
        return ", ".join([f"success {self.successes} of {self.n}", rate, *left])

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


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found of one policy, scenario by scenario.

    budget: scenarios per task that were committed to before the first one. outcomes: task →
    scenario → success, None after a crash; a scenario not run yet is absent. causes: of the
    crashes, as far as known: cause → episodes. criterion: when an episode counted as solved, in
    words; "" where its file does not say. design: how it may be judged before its end, where that
    was fixed beforehand.
    """

    budget: int
    outcomes: Mapping[str, Mapping[int, bool | None]]
    causes: Mapping[str, int] = field(default_factory=dict)
    criterion: str = ""
    design: Design | None = None

    @cached_property
    def scores(self) -> dict[str, Score]:
        """task → score; what is missing of the budget is pending."""
        found = {}
        for task, by_scenario in self.outcomes.items():
            results = list(by_scenario.values())
            found[task] = Score(
                n=sum(result is not None for result in results),
                successes=sum(result is True for result in results),
                crashed=sum(result is None for result in results),
                pending=max(0, self.budget - len(results)),
            )
        return found

    @classmethod
    def of(
        cls, episodes: Iterable[EpisodeResult], budget: int, design: Design | None = None
    ) -> "Evaluation":
        outcomes: dict[str, dict[int, bool | None]] = {}
        crashed = []
        for episode in episodes:
            if episode.crashed:
                crashed.append(episode.failure_message)
            by_scenario = outcomes.setdefault(episode.task, {})
            if not episode.pending:
                by_scenario[episode.scenario] = episode.success
        causes = crash_causes(crashed)
        return cls(budget=budget, outcomes=outcomes, causes=causes, design=design)


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of one policy from its finished parts; their budgets add up. FoundryError for
    an unfinished part, for other tasks or another criterion, and for a scenario that is in two of
    them."""
    outcomes: dict[str, dict[int, bool | None]] = {task: {} for task in parts[0].outcomes}
    for part in parts:
        if total(part.scores.values()).pending:
            raise FoundryError(
                "a part of an evaluation is not finished", "evaluate it to the end, then join it"
            )
        if part.outcomes.keys() != outcomes.keys():
            raise FoundryError(
                f"one part ran the tasks {sorted(outcomes)}, another {sorted(part.outcomes)}",
                "parts of an evaluation run the same tasks",
            )
        if part.criterion != parts[0].criterion:
            raise FoundryError(
                f"episodes count as solved by {parts[0].criterion or 'no stated rule'} in one part "
                f"of an evaluation, by {part.criterion or 'no stated rule'} in another",
                "parts of an evaluation count success alike",
            )
        for task, found in part.outcomes.items():
            twice = outcomes[task].keys() & found.keys()
            if twice:
                raise FoundryError(
                    f"scenario {min(twice)} of {task} is in two parts of one evaluation",
                    "parts have scenarios of their own: see first_scenario, episodes_per_task",
                )
            outcomes[task] |= found
    causes = Counter[str]()
    for part in parts:
        causes.update(part.causes)
    return Evaluation(
        budget=sum(part.budget for part in parts),
        outcomes=outcomes,
        causes=dict(causes.most_common()),
        criterion=parts[0].criterion,
    )


_STATUS = {"success": True, "failure": False, "crash": None}


def write_evaluation(
    out: Path, records: Path, evaluation: Evaluation, facts: EvaluationFacts | None = None
) -> dict[str, Any]:
    """Writes what every stage that makes an Evaluation leaves; returns its metrics.

    evaluation.json has the facts beside `crashes` (by cause), `budget`, `design` where there is
    one, `tasks` (each task's score, and the scenarios by outcome) and `total`.
    records/scores.jsonl, which the lineage reads, has a row per task and one for all, whose task is
    "". Metrics: success_rate (None without an outcome), the counts, success_rate/<task>.
    """
    scores = evaluation.scores
    whole = total(scores.values())
    rows = {task: score.to_json() for task, score in sorted(scores.items())}
    tasks = {
        task: row | {"scenarios": _by_status(evaluation.outcomes[task])}
        for task, row in rows.items()
    }
    design = evaluation.design and evaluation.design.model_dump(mode="json")
    found = {
        "crashes": dict(evaluation.causes),
        "budget": evaluation.budget,
        **({"design": design} if design else {}),
        "tasks": tasks,
        "total": whole.to_json(),
    }
    write_json(out / FILE, (facts.to_json() if facts else {}) | found)
    lines = [*rows.items(), ("", whole.to_json())]
    write_json_lines(records / "scores.jsonl", ({"task": task, **row} for task, row in lines))
    rates = {f"success_rate/{task}": score.rate for task, score in scores.items() if score.n}
    counts = {name: getattr(whole, name) for name in _COUNTS}
    return {"success_rate": whole.rate, **counts, **rates}


def write_episodes(records: Path, episodes: Iterable[EpisodeResult]) -> None:
    """records/episodes.jsonl, which the lineage reads. crash: the cause of one, else null."""
    names = ("task", "scenario", "success", "steps", "seconds", "seed")
    rows = (
        {name: getattr(one, name) for name in names}
        | {"crash": crash_cause(one.failure_message) if one.crashed else None}
        for one in episodes
        if not one.pending
    )
    write_json_lines(records / "episodes.jsonl", rows)


def _by_status(outcomes: Mapping[int, bool | None]) -> dict[str, list[int]]:
    return {
        status: sorted(scenario for scenario, found in outcomes.items() if found is outcome)
        for status, outcome in _STATUS.items()
    }


def read_evaluation(folder: Path) -> Evaluation:
    """Of an Evaluation's folder. FoundryError for a file of another form."""
    try:
        document = read_json(folder / FILE)
        outcomes = {
            str(task): {
                int(scenario): outcome
                for status, outcome in _STATUS.items()
                for scenario in entry["scenarios"][status]
            }
            for task, entry in document["tasks"].items()
        }
        stated = document.get("design")
        return Evaluation(
            budget=int(document["budget"]),
            outcomes=outcomes,
            causes={str(cause): int(n) for cause, n in document.get("crashes", {}).items()},
            criterion=str(document.get("criterion", "")),
            design=None if stated is None else Design(**stated),
        )
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise FoundryError(
            f"{folder / FILE} has no outcomes by task and scenario ({error!r})",
            "evaluate again: the file is of another form",
        ) from None
