"""The arms of a comparison: outcomes by task and scenario, one per seed, laid out once per pair
however many tables ask for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from foundry_core.evaluation.score import Evaluation, Score, total
from foundry_core.evaluation.statistics.block_test import (
    BlockTest,
    TaskBlocks,
    exact_test,
    task_blocks,
)

Crashes = tuple[bool | None, bool | None]
LEFT_OUT: Crashes = (None, None)


def balanced_rate(evaluation: Evaluation, tasks: Sequence[str]) -> float | None:
    """The mean of the tasks' success rates; None where one has no outcome."""
    return mean_rate([evaluation.scores[task].rate for task in tasks])


def mean_rate(rates: Sequence[float | None]) -> float | None:
    """None where there are none, or one of them is."""
    known = [rate for rate in rates if rate is not None]
    return fmean(known) if known and len(known) == len(rates) else None


def as_counted(outcome: bool | None, crash: bool | None) -> bool | None:
    """An episode's outcome where a crash counts as `crash`."""
    return crash if outcome is None else outcome


@dataclass(frozen=True)
class Arm:
    """named: its evaluations by name, one per seed, over the same tasks and scenarios."""

    name: str
    named: Mapping[str, Evaluation]
    _outcomes: dict[tuple[str, bool | None], dict[int, tuple[bool, ...]]] = field(
        default_factory=dict
    )
    _counted: dict[tuple[str, ...], Score] = field(default_factory=dict)

    @property
    def evaluations(self) -> list[Evaluation]:
        return list(self.named.values())

    def outcomes(self, task: str, crash: bool | None = None) -> Mapping[int, tuple[bool, ...]]:
        """scenario → outcomes. crash: what a crashed episode counts as; None: as nothing."""
        if (task, crash) not in self._outcomes:
            found: dict[int, tuple[bool, ...]] = {}
            for evaluation in self.evaluations:
                for scenario, success in evaluation.outcomes[task].items():
                    outcome = as_counted(success, crash)
                    if outcome is not None:
                        found[scenario] = (*found.get(scenario, ()), outcome)
            self._outcomes[task, crash] = found
        return self._outcomes[task, crash]

    def counted(self, tasks: Sequence[str]) -> Score:
        """All its episodes together."""
        key = tuple(tasks)
        if key not in self._counted:
            self._counted[key] = total(e.scores[task] for e in self.evaluations for task in tasks)
        return self._counted[key]

    def rates(self, tasks: Sequence[str]) -> tuple[float, ...]:
        """One per seed; seeds without an outcome in every task are left out."""
        rates = (balanced_rate(evaluation, tasks) for evaluation in self.evaluations)
        return tuple(rate for rate in rates if rate is not None)

    def rate_with_crashes(self, tasks: Sequence[str]) -> float | None:
        """The mean over seeds and tasks if every crash were a failure."""
        rates = [one.scores[task].rate_with_crashes for one in self.evaluations for task in tasks]
        return mean_rate(rates)

    def speaks(self, task: str) -> bool:
        """Whether every seed has an outcome there."""
        return all(one.scores[task].n for one in self.evaluations)

    def crash_share(self, tasks: Sequence[str]) -> float:
        score = self.counted(tasks)
        done = score.n + score.crashed
        return score.crashed / done if done else 0.0

    def pending(self, tasks: Sequence[str]) -> int:
        return self.counted(tasks).pending


@dataclass(frozen=True)
class Pairing:
    """Two arms, A against B, and their blocks by task, made when first asked for."""

    a: Arm
    b: Arm
    _blocks: dict[tuple[str, Crashes], TaskBlocks | None] = field(default_factory=dict)

    def test(self, tasks: Sequence[str], crashes: Crashes = LEFT_OUT) -> BlockTest:
        """The block test over tasks in which both have outcomes. crashes: what those of A and of B
        count as; None: as nothing."""
        laid_out = {task: self._of_task(task, crashes) for task in tasks}
        return exact_test({task: blocks for task, blocks in laid_out.items() if blocks})

    def _of_task(self, task: str, crashes: Crashes) -> TaskBlocks | None:
        key = task, crashes
        if key not in self._blocks:
            a, b = self.a.outcomes(task, crashes[0]), self.b.outcomes(task, crashes[1])
            self._blocks[key] = task_blocks(a, b)
        return self._blocks[key]


def compared_tasks(arms: Mapping[str, Arm], asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of tasks that all arms list: those in which every arm has an outcome, and the arms that have
    none in any. Such an arm says nothing, and must not take the tasks from the others."""
    silent = [label for label, arm in arms.items() if not any(arm.speaks(task) for task in asked)]
    speaking = [arm for label, arm in arms.items() if label not in silent]
    tasks = [task for task in asked if all(arm.speaks(task) for arm in speaking)]
    return (tasks if speaking else []), silent
