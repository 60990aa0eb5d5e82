"""Saves a run while it goes on: copies the state, writes it in a thread, commits it later.

Each rank copies and writes what it alone holds. No thread takes part in a collective: whether all
ranks have written is asked at a look, by all of them at once (`Saver.commit`).
"""

import json
import os
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from foundry_core.errors import FoundryError
from foundry_core.files import json_text
from foundry_core.models.tensor_files import Written, entries_of, flat_pieces, write_tensors
from foundry_core.training.checkpoint import (
    CheckpointFolder,
    CheckpointPlace,
    shard_name,
    state_document,
)
from foundry_core.training.distributed import World
from foundry_core.training.layout import layout_document, local_part, plan_layout


@dataclass(kw_only=True)
class _Flight:
    """A save under way. `written` or `error` is set when its thread has ended."""

    name: str
    step: int
    scalars: Mapping[str, Any]
    thread: threading.Thread = field(init=False)
    written: Written | None = None
    error: Exception | None = None


class Saver:
    """The saves of one run, of which at most one is under way. `save`, `commit` and the making of
    one are collective.

    tensors: names, shapes and places of what will be saved, which stay the same. trunk: the step
    whose checkpoint stays, however many follow.
    """

    def __init__(
        self,
        place: CheckpointPlace,
        tensors: Mapping[str, Tensor],
        world: World,
        trunk: int | None = None,
    ) -> None:
        self._place, self._world, self._trunk = place, world, trunk
        layout = plan_layout(tensors, world)
        self._document = layout_document(layout) if world.main else {}
        self._mine = [
            name
            for name, stored in layout.items()
            if any(chunk.rank == world.rank for chunk in stored.chunks)
        ]
        # Names what this start of the run builds: one that was thought dead may still write.
        self._token = world.gather([int.from_bytes(os.urandom(7), "big")])[0][0]
        self._staged: dict[str, Tensor] = {}
        self._flight: _Flight | None = None
        if isinstance(place, CheckpointFolder):
            _check_shared(place, f"{self._token:x}", world)

    @property
    def busy(self) -> bool:
        """Whether a save is under way; the same on every rank."""
        return self._flight is not None

    def save(self, step: int, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
        """Returns when the state is copied. What was under way is committed first."""
        self.commit(wait=True)
        self._stage(tensors)
        flight = _Flight(
            name=f"{self._token:x}_{step}", step=step, scalars=json.loads(json_text(scalars))
        )
        flight.thread = threading.Thread(
            target=self._write, args=(flight,), name=f"checkpoint {step}", daemon=True
        )
        self._flight = flight
        flight.thread.start()

    def commit(self, *, wait: bool = False) -> None:
        """Makes what is under way a checkpoint if all ranks have written it, or once they have.

        Raises, on every rank, what kept one of them from it.
        """
        flight = self._flight
        if flight is None:
            return
        if wait:
            flight.thread.join()
        elif self._world.sum([flight.thread.is_alive()]) != [0]:
            return
        flight.thread.join()
        self._flight = None
        shards = self._shards(flight)
        error = flight.error
        if self._world.main and all(shards):
            state = state_document(
                flight.step, self._document, [s for s in shards if s], flight.scalars
            )
            try:
                self._place.commit(flight.name, flight.step, state)
            except Exception as problem:
                error = problem
        failed = self._world.sum([error is not None])
        if error is not None:
            raise error
        if failed != [0]:
            raise FoundryError(
                f"another rank could not save the checkpoint of step {flight.step}",
                "its own message says why",
            )

    def finish(self) -> None:
        """Commits what is under way, and leaves no more than are kept."""
        self.commit(wait=True)
        if self._world.main:
            self._place.prune(trunk=self._trunk)
        self._world.barrier()

    @torch.no_grad()
    def _stage(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies this rank's part to buffers that stay, pinned ones for a device: making them costs
        more than filling them."""
        pinned = self._world.device.type == "cuda"
        for name in self._mine:
            part = local_part(tensors[name])
            if name not in self._staged:
                self._staged[name] = torch.empty(
                    part.shape, dtype=part.dtype, device="cpu", pin_memory=pinned
                )
            self._staged[name].copy_(part, non_blocking=pinned)
        if pinned:
            torch.cuda.synchronize()

    def _write(self, flight: _Flight) -> None:
        shard = shard_name(self._world.rank)
        try:
            if self._world.main:
                self._place.prune(flight.name, self._trunk)
            flight.written = write_tensors(
                self._place.building(flight.name) / shard,
                entries_of(self._staged),
                lambda name: flat_pieces(self._staged[name]),
                durable=True,
            )
            self._place.written(flight.name, shard)
        except Exception as error:  # raised by `commit`, on the main thread
            flight.error = error

    def _shards(self, flight: _Flight) -> list[Written | None]:
        """Of every rank; None for one that failed."""
        mine = flight.written if flight.error is None else None
        words = struct.unpack(">4q", bytes.fromhex(mine.sha256)) if mine else (0,) * 4
        rows = self._world.gather([mine.size if mine else -1, *words])
        return [
            Written(sha256=struct.pack(">4q", *words).hex(), size=size) if size >= 0 else None
            for size, *words in rows
        ]


def _check_shared(place: CheckpointFolder, token: str, world: World) -> None:
    """Raises FoundryError, on every rank, where they do not see one folder."""
    if world.size == 1:
        return
    if world.main:
        place.building(token)
    world.barrier()
    seen = world.gather([(place.root / f".building_{token}").is_dir()])
    blind = [rank for rank, (there,) in enumerate(seen) if not there]
    if world.main:
        (place.root / f".building_{token}").rmdir()
    if blind:
        raise FoundryError(
            f"ranks {blind} do not see rank 0's folder {place.root}",
            "scratch must be one folder that all workers share: mend the mount",
        )
