"""When the ranks of a run stop to look at their numbers, and when they save.

Both are collective, so rank 0's clock decides for all, and only at a look: between two looks no
rank waits for another one's host, nor a host for its device.
"""

import time

from foundry_core.training.config import TrainResources
from foundry_core.training.distributed import World

_SECONDS_BETWEEN_LOOKS = 1.0
_COST = 0.02
"""Most of a run's time that saving may take."""


class Cadence:
    """The clock of one run. On one process and the CPU every step is looked at: it costs nothing
    there."""

    def __init__(
        self, resources: TrainResources, world: World, total: int, trunk: int | None = None
    ) -> None:
        """trunk: the step whose state is saved, whatever else is."""
        self._resources, self._world, self._total = resources, world, total
        self._trunk = trunk
        self._asynchronous = world.size > 1 or world.device.type != "cpu"
        self._next_look = 0
        self._looked_at = self._saved_at = time.monotonic()
        self._looked_after = 0
        self._save_seconds = 0.0

    def look_due(self, done: int, *, stop: bool = False) -> bool:
        """After `done` steps; the same answer on every rank. stop: this rank was asked to end,
        which alone it does at once; among others it waits for the next look."""
        every = self._resources.log_every
        steps = self._resources.checkpoint_every_steps
        return (
            not self._asynchronous
            or (stop and self._world.size == 1)
            or done >= self._next_look
            or done % every == 0
            or (steps is not None and done % steps == 0)
            or done in (self._total, self._trunk)
        )

    def looked(self, done: int, *, stop: bool, busy: bool = False) -> tuple[bool, bool]:
        """Tells that all ranks are at a look after `done` steps; returns whether they save now, and
        whether they end. stop: this rank was asked to, which ends all of them. busy: a save is
        under way, which only a count of steps or the end may wait for."""
        now = time.monotonic()
        ahead = 1
        if self._asynchronous:
            seconds = (now - self._looked_at) / max(1, done - self._looked_after)
            ahead = max(1, int(_SECONDS_BETWEEN_LOOKS / max(seconds, 1e-6)))
        main = self._world.main
        mine = [
            float(main and self._save_due(done, now, busy)),
            float(stop),
            float(ahead if main else 0),
        ]
        save, stopping, ahead_of_all = self._world.sum(mine)
        self._next_look = done + max(1, int(ahead_of_all))
        self._looked_at, self._looked_after = now, done
        return bool(save or stopping), bool(stopping)

    def saved(self, seconds: float) -> None:
        """Tells that saving kept the ranks waiting for `seconds`."""
        self._save_seconds = seconds
        self._saved_at = self._looked_at = time.monotonic()

    def _save_due(self, done: int, now: float, busy: bool) -> bool:
        steps = self._resources.checkpoint_every_steps
        if done == self._trunk or (steps is not None and done % steps == 0):
            return True
        seconds = self._resources.checkpoint_every_seconds
        if seconds is None or busy:
            return False
        return now - self._saved_at >= max(seconds, self._save_seconds / _COST)
