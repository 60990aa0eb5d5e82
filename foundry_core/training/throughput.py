"""How fast a training goes and what it waits for: records/throughput.jsonl.

Beside metrics.jsonl, whose bytes do not depend on clocks. A row tells of the steps since the row
before; a resumed training drops the rows after the step it resumes at and goes on.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from foundry_core.files import json_line, write_atomic
from foundry_core.training.distributed import World
from foundry_core.training.mixed_batch import MixedBatch

_GIB = 2**30
Clock = Callable[[], float]


class Throughput:
    """Counts of the steps since the last row, on the host; nothing here waits for a device.

    last: the latest row. All counts are those of the global batch: ranks have equal shares.
    """

    def __init__(self, path: Path, world: World, total: int, clock: Clock = time.monotonic) -> None:
        self._path, self._world, self._total, self._clock = path, world, total, clock
        self._flops: float | None = None
        self._peak = 0.0
        self.last: dict[str, float] = {}
        self._sums = dict.fromkeys(("steps", "samples", "tokens", "seconds"), 0.0)
        self._waited_in_all = self._validated_in_all = 0.0
        self._validates = False
        self._open(0)

    def begin(self, step: int) -> None:
        """Goes on after `step` completed steps."""
        kept = []
        if step and self._path.is_file():
            kept = [line for line in _lines(self._path) if json.loads(line)["step"] <= step]
        write_atomic(self._path, "".join(kept), durable=False)
        self._open(step)

    def know_flops(self, per_step: float, peak: float) -> None:
        """What MFU is of: FLOPs of this rank's part of a step, FLOP/s of its device."""
        self._flops, self._peak = per_step, peak

    def timed(self, batches: Iterable[MixedBatch]) -> Iterator[MixedBatch]:
        """The same batches; the loop's wait for each is counted, and what is in it."""
        source = iter(batches)
        while True:
            asked = self._clock()
            batch = next(source, None)
            self._waited += self._clock() - asked
            if batch is None:
                return
            self._samples += sum(len(next(iter(part.values()))) for part in batch.values())
            self._tokens += sum(
                part["tokens"].numel() for part in batch.values() if "tokens" in part
            )
            yield batch

    @contextmanager
    def saving(self) -> Iterator[None]:
        """The block is a checkpoint that the steps wait for."""
        began = self._clock()
        yield
        self._saved += self._clock() - began

    @contextmanager
    def validating(self) -> Iterator[None]:
        """The block is a validation."""
        self._validates = True
        began = self._clock()
        yield
        self._validated += self._clock() - began

    def write_row(self, step: int) -> dict[str, float]:
        """Closes the window after `step` completed steps and returns its row without the step; {}
        where the window is empty."""
        steps, seconds = step - self._first, max(self._clock() - self._began, 1e-9)
        if steps <= 0:
            return {}
        rate = steps / seconds
        size = self._world.size
        row = {
            "seconds": seconds,
            "steps_per_second": rate,
            "samples_per_second": size * self._samples / seconds,
            "tokens_per_second": size * self._tokens / seconds,
            "data_wait_seconds": self._waited,
            "data_wait_share": self._waited / seconds,
            "checkpoint_seconds": self._saved,
            "seconds_left": (self._total - step) / rate,
            **memory(self._world.device),
        }
        if not self._tokens:
            del row["tokens_per_second"]
        if self._validates:
            row["validation_seconds"] = self._validated
        if self._flops is not None:
            row["tflops_per_second"] = self._flops * rate / 1e12
            row["mfu"] = self._flops * rate / self._peak
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json_line({"step": step, **row}))
        self.last = row
        for name, count in (
            ("steps", float(steps)),
            ("samples", size * self._samples),
            ("tokens", size * self._tokens),
            ("seconds", seconds),
        ):
            self._sums[name] += count
        self._waited_in_all += self._waited
        self._validated_in_all += self._validated
        self._open(step)
        return row

    def overall(self) -> dict[str, float]:
        """Rates over all rows that this process wrote."""
        seconds = self._sums["seconds"]
        if not seconds:
            return {}
        rates = {
            f"{name}_per_second": self._sums[name] / seconds
            for name in ("samples", "tokens")
            if self._sums[name]
        }
        share = {"data_wait_share": self._waited_in_all / seconds}
        if self._validates:
            share["validation_share"] = self._validated_in_all / seconds
        mfu = {}
        if self._flops is not None:
            mfu = {"mfu": self._flops * self._sums["steps"] / seconds / self._peak}
        return {**rates, **share, **mfu, **memory(self._world.device)}

    def _open(self, step: int) -> None:
        self._first, self._began = step, self._clock()
        self._samples = self._tokens = 0
        self._waited = self._saved = self._validated = 0.0


def memory(device: torch.device) -> dict[str, float]:
    """Peaks in GiB of what torch's allocator gave out and of what it holds; {} on a CPU."""
    if device.type != "cuda":
        return {}
    return {
        "memory_allocated_gib": torch.cuda.max_memory_allocated(device) / _GIB,
        "memory_reserved_gib": torch.cuda.max_memory_reserved(device) / _GIB,
    }


def _lines(path: Path) -> Iterator[str]:
    """Up to the first torn one, which a kill may leave."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if not line.endswith("}\n"):
                return
            yield line


def shown(row: Mapping[str, float]) -> dict[str, float]:
    """What a progress line has room for."""
    names = ("samples_per_second", "mfu", "seconds_left")
    return {name: row[name] for name in names if name in row}
