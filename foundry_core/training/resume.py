"""Where all ranks of a run continue: from one checkpoint, its own or one that a training with
another budget left, or not at all.

Ranks that resumed at different steps would wait for each other for ever (FSDP), or add gradients of
different steps without a word (DDP). So they compare what each of them sees before any is restored.
"""

from collections.abc import Sequence

from foundry_core.errors import FoundryError
from foundry_core.training.checkpoint import Checkpoint, CheckpointPlace
from foundry_core.training.distributed import World

# More than are kept: a rank's folder may lag behind.
_COMPARED = 4
_NONE = (-1, 0)


def newest_checkpoint(places: Sequence[CheckpointPlace], world: World) -> Checkpoint | None:
    """The one of most steps that all ranks agree on, of several places."""
    best: Checkpoint | None = None
    for place in places:
        known = [step for step, _ in place.known()]
        (newest,) = zip(*world.gather([max(known, default=-1)]), strict=True)
        if max(newest) > (best.step if best else -1):
            found = agreed_checkpoint(place, world)
            if found is not None and (best is None or found.step > best.step):
                best = found
    return best


def agreed_checkpoint(place: CheckpointPlace, world: World) -> Checkpoint | None:
    """The newest checkpoint that every rank finds whole at `place`; None where no rank sees any.

    Raises FoundryError, on every rank, when they have none in common.
    """
    while True:
        seen = _seen_by_rank(place, world)
        common = set.intersection(*map(set, seen))
        if not common:
            if any(seen):
                raise _disagreement(seen)
            return None
        checkpoint = place.load(max(common)[0], world.rank, world.size)
        # A torn one is gone from its place, and in common no more.
        if world.sum([checkpoint is None]) == [0]:
            return checkpoint


def _seen_by_rank(place: CheckpointPlace, world: World) -> list[list[tuple[int, int]]]:
    mine = place.known()[:_COMPARED]
    padded = [*mine, *[_NONE] * (_COMPARED - len(mine))]
    gathered = world.gather([number for pair in padded for number in pair])
    pairs = ([(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)] for flat in gathered)
    return [[pair for pair in one if pair != _NONE] for one in pairs]


def _disagreement(seen: list[list[tuple[int, int]]]) -> FoundryError:
    told = [
        f"rank {rank} {' and '.join(f'{step} ({digest:016x})' for step, digest in one) or 'none'}"
        for rank, one in enumerate(seen)
    ]
    return FoundryError(
        f"the ranks have no checkpoint in common; steps seen: {', '.join(told)}",
        "scratch must be one folder that all workers share: mend the mount, or remove the stale "
        "`checkpoints` folder",
    )
