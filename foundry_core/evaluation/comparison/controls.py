"""Controls beside a comparison: whether its exam can be passed without having learned anything.

They are shown and never tested: no letter, no part of the family whose p-values are corrected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from foundry_core.evaluation.comparison.arms import mean_rate
from foundry_core.evaluation.comparison.result import Comparison, Overall, TaskTable
from foundry_core.evaluation.score import Evaluation, Score, total

_TOLERATED = 0.05
"""A control that succeeds more often shows that a task gives its success away."""

_DOING = {"still": "doing nothing", "drift": "letting the robot drift"}


def with_controls(comparison: Comparison, controls: Mapping[str, Evaluation]) -> Comparison:
    """controls: label → evaluation on the same scenarios."""
    return replace(comparison, controls={label: one.scores for label, one in controls.items()})


def control_columns(comparison: Comparison) -> dict[str, Mapping[str, Score]]:
    """Name in tables and pictures → task → score."""
    return {f"{label} (control)": by for label, by in comparison.controls.items()}


def controls_over(comparison: Comparison, table: TaskTable) -> dict[str, Overall]:
    """Name in tables and pictures → what the control reaches over the table's tasks."""
    columns = control_columns(comparison)
    return {name: over(by_task, table.tasks) for name, by_task in columns.items()}


def over(by_task: Mapping[str, Score], tasks: Sequence[str]) -> Overall:
    """A control over some tasks; no rate where it has no outcome in one."""
    scores = [by_task.get(task, Score()) for task in tasks]
    return Overall(
        counted=total(scores),
        rate=mean_rate([one.rate for one in scores]),
        rate_with_crashes=mean_rate([one.rate_with_crashes for one in scores]),
    )


def cautions(comparison: Comparison) -> list[str]:
    """A sentence for every task and control that is not clearly below what is compared."""
    found = []
    for task in comparison.tasks:
        scores = comparison.scores[task]
        best = max(comparison.labels, key=lambda label: scores[label].rate or 0.0)
        for label, of_control in comparison.controls.items():
            control, doing = of_control.get(task), _DOING.get(label, f"the control “{label}”")
            if control is None or control.rate is None:
                continue
            if control.rate > _TOLERATED:
                found.append(f"{doing} solves {task} in {_of(control)}: its successes say little")
            elif scores[best].interval[0] <= control.interval[1]:
                found.append(
                    f"nothing is clearly above {doing} in {task}: “{best}” {_of(scores[best])}, "
                    f"{doing} {_of(control)}"
                )
    return [f"{one[0].upper()}{one[1:]}." for one in found]


def _of(score: Score) -> str:
    return f"{score.successes} of {score.n}"
