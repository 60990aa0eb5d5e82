"""Profiles a training that is built and has not begun. Nothing is saved; weights in memory move.

Each figure comes from steps of its own, for whatever watches a step slows it: plain steps for
times, then steps followed through the parts, one whose memory is looked at, one whose operators are
counted, some under torch.profiler.
"""

import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch.profiler import record_function
from torch.utils.flop_counter import FlopCounterMode

from foundry_core.errors import FoundryError
from foundry_core.models.blocks import uncompiled
from foundry_core.models.placeholders import as_on_a_device
from foundry_core.pipeline.stage import Progress
from foundry_core.training.flops import meta_step, on_meta, step_flops
from foundry_core.training.loop import Trainer
from foundry_core.training.mixed_batch import MixedBatch
from foundry_core.training.optim import freeze
from foundry_core.training.parts import OUTPUT, parameters_of, parts_of
from foundry_core.training.profiling.ceiling import ceiling_of, peaks_of
from foundry_core.training.profiling.clocks import clock_of
from foundry_core.training.profiling.counting import (
    HostRead,
    StepCounter,
    Work,
    device_waits,
    host_reads,
)
from foundry_core.training.profiling.follow import Follower
from foundry_core.training.profiling.graphs import Graphs, recorded_calls
from foundry_core.training.profiling.ledger import (
    BACKWARD,
    DATA,
    FORWARD,
    Label,
    Ledger,
)
from foundry_core.training.profiling.memory import (
    AllocatorPeaks,
    Held,
    Memory,
    bytes_of,
    memory_of,
    unused_parameters,
)
from foundry_core.training.profiling.operators import Operators, profile_operators
from foundry_core.training.profiling.result import (
    Arithmetic,
    Part,
    Profile,
    Setting,
    StepTimes,
)
from foundry_core.training.profiling.wanted import Wanted
from foundry_core.training.stages.job import Training

_PROFILED_STEPS = 3


def profile_training(training: Training, wanted: Wanted, progress: Progress) -> Profile:
    """Of one worker's steps, in this process: where the stage asks for several, its share of the
    batch without the exchange with the others."""
    ctx = training.job.ctx
    trainer, workers = training.trainer(), ctx.resources.workers
    if workers > 1:
        trainer.batches = partial(training.loader.batches, rank=0, world=workers)
    found = profile_trainer(trainer, wanted, progress)
    notes = list(found.notes)
    if workers > 1:
        notes.append(
            f"one of {workers} workers, without the exchange between them; "
            "weights, gradients, moments and average are whole here"
        )
    return replace(found, notes=notes, setting=replace(found.setting, workers=workers))


def profile_trainer(trainer: Trainer, wanted: Wanted, progress: Progress) -> Profile:
    """As profile_training, of a trainer that was not built yet."""
    return _Profiler(trainer, wanted, progress).profile()


class _Profiler:
    """One pass over steps per question; the stream of batches goes on through all of them."""

    def __init__(self, trainer: Trainer, wanted: Wanted, progress: Progress) -> None:
        self._trainer, self._wanted, self._progress = trainer, wanted, progress
        freeze(trainer.model, trainer.frozen)
        self._plain = on_meta(trainer.model)  # before blocks are compiled or sharded
        trainer.build()
        self._device = trainer.world.device
        self._cuda = self._device.type == "cuda"
        self._clock = clock_of(self._device)
        self._number = 0
        self._passes = 0

    def profile(self) -> Profile:
        self._source = iter(self._trainer.batches(0))
        try:
            return self._measured()
        finally:
            if isinstance(self._source, Generator):
                self._source.close()  # ends the loader's workers

    def _measured(self) -> Profile:
        self._pass("warms up")
        for _ in range(self._wanted.warmup):
            self._step()
        times, peaks = self._timed()
        labels = self._followed()
        memory, unused = self._looked_at(peaks)
        work, counted, reads = self._counted()
        operators = self._profiled()
        graphs = self._traced() if self._wanted.graph_breaks else None
        self._pass("counts FLOPs")
        flops, how, by_part = self._flops(counted)
        outside = (1.0 - operators.products) * times.median
        peaks_here = peaks_of(self._device, self._product_type, self._trainer.peak)
        rate = flops / times.median
        return Profile(
            setting=self._setting(),
            times=times,
            parts=self._parts(labels, by_part, memory),
            phases=_phases(labels),
            watched_seconds=sum(labels.values()),
            operators=operators,
            memory=memory,
            unused=unused,
            frozen=sum(not p.requires_grad for p in self._trainer.model.parameters()),
            host_reads=reads,
            arithmetic=Arithmetic(
                flops=flops,
                how=how,
                rate=rate,
                mfu=rate / peaks_here.flops if peaks_here.known else None,
            ),
            ceiling=ceiling_of(work, flops, outside, peaks_here),
            graphs=graphs,
            notes=_doubts(operators) if self._cuda else (),
        )

    def _pass(self, message: str) -> None:
        self._progress(self._passes, 6 + self._wanted.graph_breaks, message)
        self._passes += 1

    def _next(self) -> MixedBatch:
        batch = next(self._source, None)
        if batch is None:
            raise FoundryError(
                f"the data ended at step {self._number} of the profile",
                "profile fewer steps, or let the loader repeat its data",
            )
        self._batch: MixedBatch = batch
        return batch

    def _step(self, fetching: Callable[[str], AbstractContextManager[Any]] = nullcontext) -> None:
        """Fetches a batch, inside of fetching(DATA), and does the trainer's step."""
        with fetching(DATA):
            batch = self._next()
        self._trainer.step(self._number, batch)
        self._number += 1

    @contextmanager
    def _phases_in(self, phase: Callable[[str], AbstractContextManager[Any]]) -> Iterator[None]:
        before, self._trainer.phase = self._trainer.phase, phase
        try:
            yield
        finally:
            self._trainer.phase = before

    def _timed(self) -> tuple[StepTimes, AllocatorPeaks]:
        """Steps that nothing watches."""
        self._pass("times steps")
        steps, waits = self._wanted.steps, Stopwatch()
        samples = tokens = 0
        self._clock.finish()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        marks = [self._clock.mark()]
        for _ in range(steps):
            self._step(waits.running)
            marks.append(self._clock.mark())
            samples += sum(_sizes(self._batch).values())
            tokens += sum(
                part["tokens"].numel() for part in self._batch.values() if "tokens" in part
            )
        self._clock.finish()
        each = [self._clock.seconds(a, b) for a, b in pairwise(marks)]
        times = StepTimes(
            warmup=self._wanted.warmup,
            each=each,
            median=statistics.median(each),
            least=min(each),
            data_wait=waits.seconds / steps,
            data_wait_share=waits.seconds / sum(each),
            samples_per_second=samples / sum(each),
            tokens_per_second=tokens / sum(each) if tokens else None,
        )
        return times, AllocatorPeaks.of(self._device)

    def _followed(self) -> dict[Label, float]:
        """Label → seconds of a step."""
        self._pass("follows steps through the parts")
        ledger, steps = Ledger(self._clock.mark), max(1, self._wanted.steps // 2)
        with self._follower(ledger):
            ledger.start()
            for _ in range(steps):
                self._step(ledger.phase)
            ledger.stop()
        self._clock.finish()
        totals = ledger.totals(self._clock.seconds)
        return {label: seconds / steps for label, seconds in totals.items()}

    @contextmanager
    def _follower(self, ledger: Ledger) -> Iterator[None]:
        trainer = self._trainer
        with self._phases_in(ledger.phase), Follower(trainer.loss, trainer.model, ledger):
            yield

    def _looked_at(self, peaks: AllocatorPeaks) -> tuple[Memory, list[str]]:
        """What a step holds, and which parameters it gives no gradient."""
        self._pass("looks at memory")
        trainer, ledger = self._trainer, Ledger(lambda: None)
        held = Held(trainer.loss, ledger)
        unused: list[str] = []
        gradients = 0

        def phase(name: str) -> AbstractContextManager[Any]:
            nonlocal gradients
            if name == "norm":  # all gradients are there
                unused.extend(unused_parameters(trainer.model))
                there = [p.grad for p in trainer.model.parameters() if p.grad is not None]
                gradients = bytes_of(there)
            return ledger.phase(name)

        with self._follower(ledger), self._phases_in(phase), held.watching():
            self._step()
        return memory_of(trainer, gradients, held, peaks), unused

    def _counted(self) -> tuple[list[Work], dict[Label, float], list[HostRead]]:
        """Operators of a step, as they run uncompiled; their FLOPs; its waits for the device."""
        self._pass("counts operators")
        ledger = Ledger(lambda: counter.flops)
        counter = StepCounter(ledger)
        as_written = uncompiled(self._trainer.model)
        with self._follower(ledger), as_written, as_on_a_device(), counter:
            ledger.start()
            self._step(ledger.phase)
            ledger.stop()
        self._counted_batch = self._batch
        reads = counter.reads
        if self._cuda:
            with device_waits() as reads:
                self._step()
        return counter.work, ledger.totals(_more), host_reads(reads)

    def _profiled(self) -> Operators:
        self._pass("profiles operators")
        phase = _in_trace
        with self._phases_in(phase):
            step = partial(self._step, phase)
            return profile_operators(step, _PROFILED_STEPS, self._device, self._wanted.trace)

    def _traced(self) -> list[Graphs]:
        self._pass("traces graphs")
        trainer = self._trainer
        with uncompiled(trainer.model):
            with recorded_calls(trainer.loss, parts_of(trainer.model)) as calls:
                self._step()
            with trainer.autocast():
                return [call.explained() for call in calls]

    @property
    def _product_type(self) -> torch.dtype:
        return torch.float32 if self._trainer.config.precision == "fp32" else torch.bfloat16

    def _setting(self) -> Setting:
        trainer = self._trainer
        config, resources = trainer.config, trainer.resources
        return Setting(
            stage=trainer.stage,
            device=torch.cuda.get_device_name(self._device) if self._cuda else "CPU",
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            precision=config.precision,
            compile=config.compile,
            strategy=resources.strategy,
            recompute=resources.recompute,
            micro_batch=resources.micro_batch,
            loader_workers=resources.loader_workers,
            workers=1,
            batch=_sizes(self._batch),
        )

    def _parts(
        self, seconds: Mapping[Label, float], flops: Mapping[Label, float], memory: Memory
    ) -> list[Part]:
        seen: set[int] = set()
        found = []
        for name, modules in [*parts_of(self._trainer.model).items(), (OUTPUT, ()), ("", ())]:
            own = [p for p in parameters_of(modules) if id(p) not in seen]
            seen.update(map(id, own))
            forward, backward = Label(FORWARD, name), Label(BACKWARD, name)
            part = Part(
                name=name,
                parameters=sum(p.numel() for p in own),
                forward_seconds=seconds.get(forward, 0.0),
                backward_seconds=seconds.get(backward, 0.0),
                forward_flops=flops.get(forward, 0.0),
                backward_flops=flops.get(backward, 0.0),
                activation_bytes=memory.activations.get(name, 0),
            )
            found.append(part)
        return found

    def _flops(self, counted: Mapping[Label, float]) -> tuple[float, str, Mapping[Label, float]]:
        """(of a step, how they were found, by part). counted: those of the step's operators, where
        nothing else is to be had."""
        flops, how = step_flops(self._plain, self._trainer.objectives, self._counted_batch)
        if flops is None:
            again = ", those computed again included" if self._trainer.resources.recompute else ""
            how = f"counted in a step, where operators have a formula{again}"
            flops = sum(counted.values())
        try:
            return flops, how, self._flops_by_part()
        except RuntimeError:  # the model looks at values, which the meta device has not
            return flops, how, counted

    def _flops_by_part(self) -> dict[Label, float]:
        """Counted without arithmetic, as MFU counts: nothing that is computed twice."""
        loss, inputs = meta_step(self._plain, self._trainer.objectives, self._counted_batch)
        with FlopCounterMode(display=False) as counter:
            ledger = Ledger(counter.get_total_flops)
            with Follower(loss, loss.model, ledger):
                ledger.start()
                with ledger.phase(FORWARD):
                    total, _ = loss(*inputs)
                with ledger.phase(BACKWARD):
                    total.backward()
                ledger.stop()
        return ledger.totals(_more)


class Stopwatch:
    """seconds: of all blocks, on the host."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self, _: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began


def _doubts(operators: Operators) -> Sequence[str]:
    if operators.products + operators.others > 0:
        return ()
    return (
        "no kernel was recorded, so that operators and ceilings mean nothing: is the profiler "
        "allowed to use CUPTI here? KINETO_LOG_LEVEL=0 shows what it says",
    )


def _more(start: float, end: float) -> float:
    return end - start


def _in_trace(name: str) -> AbstractContextManager[Any]:
    return record_function(f"foundry: {name}")


def _phases(seconds: Mapping[Label, float]) -> dict[str, float]:
    """Of those that belong to no part."""
    return {
        label.phase: value
        for label, value in seconds.items()
        if label.phase not in (FORWARD, BACKWARD)
    }


def _sizes(batch: MixedBatch) -> dict[str, int]:
    """Modality → samples."""
    return {m: len(next(iter(part.values()))) for m, part in batch.items()}
