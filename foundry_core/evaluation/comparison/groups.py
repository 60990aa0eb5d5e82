"""Groups of tasks that are reported together: a user's own, and those that a benchmark's results
are published by.
"""

from collections.abc import Mapping, Sequence

from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError

Groups = Mapping[str, Sequence[str]]

# Of LBM Eval's published evaluations: no training data had the unseen ones.
_LBM = {
    "main": (
        "BimanualPlaceAppleFromBowlIntoBin",
        "BimanualPlaceFruitFromBowlIntoBin",
        "BimanualPutRedBellPepperInBin",
        "BimanualPutSpatulaOnPlateFromDryingRack",
        "BimanualPutSpatulaOnPlateFromTable",
        "BimanualStackPlatesOnTableFromDryingRack",
        "BimanualStoreCerealBoxUnderShelf",
        "PlaceCupByCoaster",
        "PushCoasterToCenterOfTable",
        "PushCoasterToMug",
        "PutBananaOnSaucer",
        "PutKiwiInCenterOfTable",
        "PutMugOnSaucer",
        "PutSpatulaInUtensilCrock",
        "TurnCupUpsideDown",
        "TurnMugRightsideUp",
    ),
    "unseen": (
        "BimanualPlaceAvocadoFromBowlIntoBin",
        "BimanualPutSpatulaOnPlateFromUtensilCrock",
        "PutMugInCenterOfTable",
    ),
}
_BENCHMARKS: Sequence[Groups] = (_LBM,)


def known_groups(tasks: Sequence[str]) -> Groups:
    """Of the benchmark that has all these tasks, where they fall into several of its groups."""
    for groups in _BENCHMARKS:
        found = {
            name: [task for task in members if task in tasks] for name, members in groups.items()
        }
        if len(tasks) == sum(map(len, found.values())) and all(found.values()):
            return found
    return {}


def parse_groups(texts: Sequence[str]) -> Groups:
    """NAME=Task,Task → name → tasks. FoundryError for a text of another form, and a name twice."""
    groups: dict[str, list[str]] = {}
    for text in texts:
        name, _, listed = text.partition("=")
        tasks = [task.strip() for task in listed.split(",") if task.strip()]
        if not name.strip() or not tasks or name.strip() in groups:
            raise FoundryError(
                f"--group {text!r} does not name one new group and its tasks",
                "write --group NAME=Task,Task",
            )
        groups[name.strip()] = tasks
    return groups


def check_groups(groups: Groups, tasks: Sequence[str]) -> None:
    """tasks: of any evaluation. FoundryError for a group with another one."""
    for name, members in groups.items():
        for task in members:
            if task not in tasks:
                raise FoundryError(
                    f"group {name!r}: no evaluation has task {task!r}", nearest(task, tasks)
                )
