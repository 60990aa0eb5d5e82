"""The training loop of every stage: LLM, VLM and VLA differ in their objectives and batches only.

One optimizer step takes a mixed batch {modality: {name: tensor}}. Each objective returns the SUM
of its loss over valid elements; the loop divides by the count over the global batch, so micro-
batches and ranks add up to the same gradient as one big batch. Nothing draws from a global random
state: the state of a run is its weights, moments, average and step.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundry_core.data.loading.schedule import Weight
from foundry_core.errors import FoundryError
from foundry_core.files import write_json
from foundry_core.models.blocks import compile_blocks
from foundry_core.pipeline.stage import Begin, Progress
from foundry_core.pipeline.trunks import LEFT, not_used, step_name
from foundry_core.training.cadence import Cadence
from foundry_core.training.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    CheckpointPlace,
)
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.distributed import World, gradient_sync, parallelise, reshard
from foundry_core.training.dropout import has_dropout, masks
from foundry_core.training.flops import on_meta, peak_flops, step_flops
from foundry_core.training.fp8 import compute_in_fp8
from foundry_core.training.metrics import MetricsLog
from foundry_core.training.mixed_batch import (
    DATASETS,
    Batch,
    MixedBatch,
    MixedLoss,
    Objective,
    Probe,
    StepKey,
    by_dataset,
    split_batch,
)
from foundry_core.training.objectives import reach_all
from foundry_core.training.optim import (
    build_optimizer,
    freeze,
    gradient_norm,
    lr_multiplier,
    set_lr,
    update,
)
from foundry_core.training.parts import part_norms, recompute
from foundry_core.training.pending import PendingSteps, StepNumbers
from foundry_core.training.resume import agreed_checkpoint, newest_checkpoint
from foundry_core.training.saving import Saver
from foundry_core.training.sinks.base import MetricWriters, RunInfo
from foundry_core.training.state import Ema, RunState
from foundry_core.training.stop import StopRequest
from foundry_core.training.throughput import Throughput, shown
from foundry_core.training.validation import run as validation
from foundry_core.training.validation.validator import Validator

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run leaves besides the weights in the model (the average's where EMA is on; the best
    ones where a rule keeps them). steps: those done, fewer than the budget's where validation ended
    the run. continued: as `Trainer.continued`. validated: what validation says at the end."""

    steps: int
    resumed_from: int
    continued: Mapping[str, Any] | None
    skipped: int
    last: Mapping[str, float]
    validated: Mapping[str, float] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Flat numbers, of the stage's result."""
        return {
            "steps": self.steps,
            "resumed_from_step": self.resumed_from,
            "continued_from_step": (self.continued or {}).get("step", 0),
            "skipped_updates": self.skipped,
            **{f"final_{name}": value for name, value in self.last.items()},
            **self.validated,
        }


@dataclass(kw_only=True)
class Trainer:
    """Everything a run is made of. `train()` leaves the final weights in `model`.

    stage, key: what metric sinks call the run.
    batches(first_step) yields the mixed batch of each step from `first_step` on (this rank's part
    of it): what lets a run resume anywhere is that the batch of a step depends on the step alone.
    checkpoints: where they lie; default: in `scratch`.
    trunk: the step whose state is left in `scratch`/trunks for larger budgets.
    begin: the state of another budget's training to go on from, unless this one's own is further.
    validator: what looks at held-out samples, where the config asks for it.
    ground: the digest of what decides how floats are rounded here; states that were computed on
    several of them are marked so.
    before_average: called by every rank before the average replaces the weights, where EMA is on.
    datasets: of modalities whose losses are told apart: the names of their datasets, by DATASETS.
    phase: what each phase of a step runs inside of (prepare, forward, backward, norm, optimizer,
    average), by its name.
    """

    stage: str = "training"
    key: str = ""
    model: nn.Module
    objectives: Mapping[str, Objective]
    batches: Callable[[int], Iterable[MixedBatch]]
    config: TrainingConfig
    total_steps: int
    seed: int
    resources: TrainResources
    scratch: Path
    records: Path
    progress: Progress
    weights: Mapping[str, Weight] = field(default_factory=dict)
    datasets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    lr_scale: Mapping[str, float] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    world: World = field(default_factory=World)
    before_average: Callable[[], None] | None = None
    checkpoints: CheckpointPlace | None = None
    phase: Callable[[str], AbstractContextManager[Any]] = nullcontext
    trunk: int | None = None
    begin: Begin | None = None
    ground: str = ""
    validator: Validator | None = None

    def train(self) -> TrainResult:
        """Runs to total_steps, from the newest checkpoint if there is one.

        FoundryError for a loss that is not finite, or data that end early. Ends with SystemExit
        after SIGTERM, when a checkpoint of the step it was in is saved.
        """
        started = time.monotonic(), time.process_time()
        self.build()
        self._open()
        first = self._resume()
        run = RunInfo(
            stage=self.stage,
            key=self.key,
            seed=self.seed,
            first_step=first,
            total_steps=self.total_steps,
        )
        writers = MetricWriters(self.resources.sinks if self.world.main else (), run)
        self.stop = StopRequest(self.world.stop)
        try:
            with self.stop.listening():
                self._steps(first, writers)
        finally:
            writers.close()
            if self.world.size == 1:  # several may not all get here
                self.saver.finish()
        return self._finish(first, *started)

    def _steps(self, first: int, writers: MetricWriters) -> None:
        if self.validation.first_due(first):
            writers.write(0, self._validate())
        batches = self.throughput.timed(self.batches(first))
        for step, batch in zip(range(first, self.total_steps), batches, strict=False):
            if self.validation.judge.stop:
                break
            if step == first:
                self._know_flops(batch)
            values = self.step(step, batch)
            self.done = step + 1
            self.pending.add(step, values, batch)
            validates = self.validation.due(self.done)
            if validates or self.cadence.look_due(self.done, stop=self.stop.asked):
                self._look()
                self._report(writers, self._validate() if validates else {})
                self.saver.commit()
                save, end = self.cadence.looked(
                    self.done, stop=self.stop.look(), busy=self.saver.busy
                )
                if save:
                    with self.throughput.saving():
                        self._save()
                if end and self.done < self.total_steps:
                    self.saver.finish()
                    self.stop.end()
        if self.done < self.total_steps and not self.validation.judge.stop:
            raise FoundryError(
                f"the data ended at step {self.done} of {self.total_steps}",
                "lower the budget, or let the loader repeat its data",
            )
        # After the last save: a larger budget has no row here.
        self._close_window(writers)
        self.saver.finish()

    def step(self, number: int, batch: MixedBatch) -> dict[str, Tensor]:
        """The optimizer step of this 0-based number on this rank's batch: losses and norms, on the
        device. Needs `build`."""
        set_lr(self.optimizer, lr_multiplier(self.config.schedule, number, self.total_steps))
        values = self._backward(batch, StepKey(seed=self.seed, step=number))
        with self.phase("norm"):
            if self.resources.part_norms:
                values |= part_norms(self.model)
            values["grad_norm"] = gradient_norm(self.optimizer)
        with self.phase("optimizer"):
            update(self.optimizer, values["loss"], values["grad_norm"], self.config.clip)
            self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            with self.phase("average"):
                self.ema.update(number + 1)
        return values

    def build(self) -> None:
        """Loss, optimizer and average of the model, on the device, as `step` uses them. Writes
        nothing."""
        self.model.to(self.world.device)
        freeze(self.model, self.frozen)
        numbers = {modality: len(names) for modality, names in self.datasets.items()}
        loss = MixedLoss(self.model, self.objectives, self.weights, numbers)
        # Before blocks are compiled or sharded: what is counted is the plain model's arithmetic.
        self._plain = on_meta(self.model) if self.peak else None
        if self.config.fp8 is not None:
            compute_in_fp8(self.model, self.config.fp8, self.world.device)
        recompute(self.model, self.resources.recompute)
        if self.config.compile == "blocks":
            compile_blocks(self.model)
        self.loss = parallelise(
            loss,
            self.world,
            self.resources.strategy,
            shard_size=self.resources.shard_size,
            bf16_weights=self.config.precision == "bf16_weights",
            unused=not reach_all(self.model, self.objectives),
        )
        self.loss.train()
        self._drops = has_dropout(self.model)
        self.optimizer = build_optimizer(self.model, self.config.optimizer, self.lr_scale)
        self.ema = Ema(self.model, self.config.ema) if self.config.ema else None
        self.validation = validation.Validation(self.validator, self.model, self.ema, self.world)
        self.state = RunState(self.model, self.optimizer, self.ema, self.validation.best)

    @property
    def peak(self) -> float | None:
        """FLOP/s that MFU is a share of; None where it is not known."""
        return (self.resources.peak_tflops or 0) * 1e12 or peak_flops(self.world.device)

    def _open(self) -> None:
        """What keeps account of a run, in its scratch."""
        self.place: CheckpointPlace = self.checkpoints or CheckpointFolder(
            self.scratch / "checkpoints"
        )
        rank = self.world.rank or ""
        self.log = MetricsLog(self.scratch / f"metrics{rank}.jsonl")
        self.validation.open(self.scratch)
        self.throughput = Throughput(
            self.scratch / f"throughput{rank}.jsonl", self.world, self.total_steps
        )
        self.pending = PendingSteps()
        self._last_measures: Mapping[str, float] = {}
        self.cadence = Cadence(self.resources, self.world, self.total_steps, self.trunk)
        self.skipped = 0
        self.grounds = {self.ground}
        # Which training's state this run went on from: {key, trunk, step}; or why not: {refused}.
        self.continued: Mapping[str, Any] | None = None
        self._counted = "no MFU: the device's peak is not known; set resources.peak_tflops"
        self.done = 0
        self._shown_at = time.monotonic()

    def _know_flops(self, batch: MixedBatch) -> None:
        """Counts the arithmetic of the first batch, where a device's peak is known."""
        if self.peak and self._plain is not None:
            flops, self._counted = step_flops(self._plain, self.objectives, batch)
            if flops is not None:
                self.throughput.know_flops(flops, self.peak)
        self._plain = None

    def _backward(self, batch: MixedBatch, key: StepKey) -> dict[str, Tensor]:
        """Accumulates the gradient of the global batch; returns the global means of the losses, on
        the device, and (sum, elements) of each dataset's."""
        with self.phase("prepare"):
            by_modality, elements = self._counts(batch)
            cut = self.config.compile == "none"
            parts = split_batch(batch, self.resources.micro_batch, cut=cut)
        sums: dict[str, Tensor] = {}
        for i, part in enumerate(parts):
            with self.phase("prepare"):
                part = self._to_device(part)
            with gradient_sync(self.loss, i + 1 == len(parts)):
                drawn = masks(self._drops, key, i, self.world)
                with self.phase("forward"), self.autocast(), drawn:
                    loss, logged = self.loss(part, by_modality, key)
                with self.phase("backward"):
                    (loss * self.world.size if self.world.size > 1 else loss).backward()
            for name, value in logged.items():
                sums[name] = sums[name] + value if name in sums else value
        flat = torch.cat([value.double().flatten() for value in sums.values()])
        sizes = [value.numel() for value in sums.values()]
        values = dict(zip(sums, self.world.total(flat).split(sizes), strict=True))
        found = {name: value[0] for name, value in values.items() if not name.endswith("/")}
        for modality, names in self.datasets.items():
            pairs = torch.stack((values[f"{modality}_loss/"], elements[modality]), dim=1)
            found |= {f"{modality}_loss/{n}": p for n, p in zip(names, pairs, strict=True)}
        return found

    def autocast(self) -> torch.autocast:
        """In which type the recipe's precision computes products."""
        bf16 = self.config.precision != "fp32"
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=bf16)

    def _counts(self, batch: MixedBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Valid elements of the global batch: by modality, at least 1; and of each of the datasets
        that are told apart, [datasets]."""
        rows = {m: self.objectives[m].elements(part) for m, part in batch.items()}
        whole = torch.stack([one.sum().double() for one in rows.values()])
        parts = {
            m: by_dataset(rows[m], batch[m][DATASETS], len(names)).double()
            for m, names in self.datasets.items()
        }
        local = torch.cat((whole, *parts.values()))
        sizes = [len(whole), *(len(part) for part in parts.values())]
        counts, *each = self.world.total(self._on_device(local)).split(sizes)
        by_modality = dict(zip(batch, counts.clamp(min=1).float().unbind(), strict=True))
        return by_modality, dict(zip(parts, each, strict=True))

    def _to_device(self, batch: MixedBatch) -> dict[str, Batch]:
        prepared = {m: dict(self.objectives[m].prepare(rows)) for m, rows in batch.items()}
        for modality in self.datasets:
            prepared[modality][DATASETS] = batch[modality][DATASETS]
        return {
            m: {name: self._on_device(tensor) for name, tensor in part.items()}
            for m, part in prepared.items()
        }

    def _on_device(self, tensor: Tensor) -> Tensor:
        if self.world.device.type == "cpu":
            return tensor
        # From memory that is not pinned, even a non-blocking copy waits for the device.
        if self.world.device.type == "cuda" and not tensor.is_pinned():
            expanded = 0 in tensor.stride()  # such a view cannot be written to
            tensor = (tensor.contiguous() if expanded else tensor).pin_memory()
        return tensor.to(self.world.device, non_blocking=True)

    def _look(self) -> None:
        """Takes in what the steps since the last look gave."""
        for numbers in self.pending.read():
            if numbers.finite:
                self.log.add(numbers.values, numbers.shares)
            else:
                self._non_finite(numbers)

    def _non_finite(self, numbers: StepNumbers) -> None:
        rule = self.config.non_finite
        self.skipped += 1
        if rule.policy == "skip" and self.skipped <= rule.max_skips:
            return
        loss, norm = numbers.values["loss"], numbers.values["grad_norm"]
        reason = f"loss {loss}, gradient norm {norm} at step {numbers.step}"
        if rule.policy == "skip":
            reason = f"{self.skipped} updates dropped, max_skips={rule.max_skips}: {reason}"
        raise FoundryError(
            f"training is not finite: {reason}; samples of the batch: "
            f"{json.dumps(numbers.samples)}",
            "look at these samples; lower training.optimizer.lr, set training.clip, or allow "
            "skips with training.non_finite.policy=skip",
        )

    def _validate(self) -> dict[str, float]:
        """The measures, by the names that sinks know. Collective."""
        with self.throughput.validating():
            return self.validation.measure(
                self.done, self.loss, self._probe, self.resources.micro_batch
            )

    def _probe(self, modality: str, batch: Batch, probe: Probe, key: StepKey) -> dict[str, Tensor]:
        prepared = {n: self._on_device(tensor) for n, tensor in probe.prepare(batch).items()}
        with self.autocast():
            _, found = self.loss({modality: prepared}, {}, key, probe)
        reshard(self.loss)
        return {name: tensor.cpu() for name, tensor in found.items()}

    def _report(self, writers: MetricWriters, validated: Mapping[str, float]) -> None:
        if self.done % self.resources.log_every == 0:
            self._write_row(writers, validated)
        elif self.done == self.total_steps or self.validation.judge.stop:
            self._last_measures = validated  # its window's row comes at the end: trackers take one
        elif validated:
            writers.write(self.done, validated)
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if self.world.main and (now - self._shown_at > 0.5 or self.done == self.total_steps):
            self._shown_at = now
            values = {name: value for name, value in self.log.last.items() if "/" not in name}
            values |= shown(self.throughput.last)
            self.progress(self.done, self.total_steps, "training", **values)

    def _write_row(self, writers: MetricWriters, validated: Mapping[str, float]) -> None:
        multiplier = lr_multiplier(self.config.schedule, self.done - 1, self.total_steps)
        row = self.log.write_row(self.done, lr=self.config.optimizer.lr * multiplier)
        if row or validated:
            writers.write(self.done, {**row, **validated})
            writers.write_throughput(self.done, self.throughput.write_row(self.done))

    def _close_window(self, writers: MetricWriters) -> None:
        """The row of the last steps, fewer than others have, and their validation."""
        if not self.total_steps:
            return
        last = self.validation.last_due(self.done)
        self._write_row(writers, self._validate() if last else self._last_measures)
        self._show()

    def _save(self) -> None:
        began = time.monotonic()
        rows = self.place.carries_rows or self.done == self.trunk
        scalars = {
            "metrics": self.log.state(rows=rows),
            **self.validation.state(rows=rows),
            "skipped": self.skipped,
            "grounds": sorted(self.grounds),
            "continued": self.continued,
        }
        self.saver.save(self.done, self.state.tensors(), scalars)
        self.cadence.saved(time.monotonic() - began)

    def _resume(self) -> int:
        """Restores the newest whole state, the same one on every rank; returns the number of
        completed steps."""
        left = CheckpointFolder(self.scratch / LEFT)
        checkpoint = newest_checkpoint([self.place, left], self.world)
        self.saver = Saver(self.place, self.state.tensors(), self.world, self.trunk)
        if self.begin and self.begin.step > (checkpoint.step if checkpoint else 0):
            checkpoint = self._of_trunk(self.begin) or checkpoint
        if checkpoint is None:
            self.log.restore(None)
            self.validation.restore({})
            self.throughput.begin(0)
            return 0
        self.state.restore(checkpoint)
        scalars = checkpoint.scalars
        self.log.restore(scalars["metrics"] if self.world.main else None)
        self.validation.restore(scalars)
        self.skipped = scalars["skipped"]
        self.grounds |= set(scalars.get("grounds", [""]))
        self.continued = scalars.get("continued") or self.continued
        self.done = checkpoint.step
        self.throughput.begin(self.done)
        return checkpoint.step

    def _of_trunk(self, begin: Begin) -> Checkpoint | None:
        """The state that another training left, if it is whole and of this model."""
        found = agreed_checkpoint(CheckpointFolder(begin.path), self.world)
        if found is None:
            why = "it is damaged"
        elif found.step != begin.step:
            why = f"it is of step {found.step}"
        else:
            why = self.state.misfit(found)
        if why:
            refused = not_used(begin.key, begin.step, why)
            _log.warning("%s", refused)
            self.continued = {"refused": refused}
            return None
        self.continued = {"key": begin.key, "trunk": begin.trunk, "step": begin.step}
        return found

    def _told(self) -> Mapping[str, Any] | None:
        """What it went on from; `mixed` where its steps were computed on several grounds."""
        if self.continued is None or len(self.grounds) == 1:
            return self.continued
        return {**self.continued, "mixed": True}

    def _leave_trunk(self) -> None:
        """Rank 0: puts the state that larger budgets need where the artifact's builder finds it."""
        if self.trunk is None or not self.world.main:
            return
        folder = self.scratch / LEFT / step_name(self.trunk)
        if not folder.exists() and (self.continued or {}).get("step") != self.trunk:
            self.place.take(self.trunk, folder)

    def _finish(self, first: int, wall: float, cpu: float) -> TrainResult:
        seconds = time.monotonic() - wall
        self._leave_trunk()
        if self.ema:
            if self.before_average:
                self.before_average()
            self.ema.copy_to_module()
        validated = self.validation.finish(self.records)
        self.loss.eval()
        self.log.close()
        if self.world.main:
            self.records.mkdir(parents=True, exist_ok=True)
            names = ("metrics.jsonl", "throughput.jsonl")
            for name in (*names, validation.FILE) if self.validator else names:
                shutil.copyfile(self.scratch / name, self.records / name)
            timings = {
                "seconds": seconds,
                "resumed_from_step": first,
                "steps_per_second": (self.done - first) / max(seconds, 1e-9),
                "cpu_seconds": time.process_time() - cpu,
                **self.throughput.overall(),
                "flops": self._counted,
            }
            write_json(self.records / "timings.json", timings, durable=False)
        return TrainResult(
            steps=self.done,
            resumed_from=first,
            continued=self._told(),
            skipped=self.skipped,
            last=self.log.last,
            validated=validated,
        )
