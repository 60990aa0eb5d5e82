"""Evaluations that are to be compared, whoever wrote them: equal names for equal tasks, and one
benchmark."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from foundry_core.evaluation.facts import differences, read_facts
from foundry_core.evaluation.score import Evaluation, read_evaluation
from foundry_core.evaluation.task_names import pascal_case


def read_together(folders: Mapping[str, Path]) -> dict[str, Evaluation]:
    """Evaluations by label from their folders. FoundryError for a file of another form, and for
    benchmarks that have nothing in common."""
    differences({label: read_facts(folder) for label, folder in folders.items()})
    return one_spelling({label: read_evaluation(folder) for label, folder in folders.items()})


def one_spelling(evaluations: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """The evaluations with equal names for equal tasks: a tree of LBM Eval calls PushV3 what its
    benchmark calls push-v3. The benchmark's spelling stays; names that differ in more than that, or
    within one evaluation, are left alone."""
    spellings: dict[str, set[str]] = {}
    apart: set[str] = set()
    for one in evaluations.values():
        own: dict[str, str] = {}
        for task in one.outcomes:
            name = pascal_case(task)
            spellings.setdefault(name, set()).add(task)
            if own.setdefault(name, task) != task:
                apart.add(name)
    # Capitals sort first.
    chosen = {name: max(some) for name, some in spellings.items() if name not in apart}
    return {
        label: replace(
            one,
            outcomes={
                chosen.get(pascal_case(task), task): of_task
                for task, of_task in one.outcomes.items()
            },
        )
        for label, one in evaluations.items()
    }
