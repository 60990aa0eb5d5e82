"""What a training stage costs: bytes on each GPU, FLOPs, GPU hours. No torch for native models.

Bytes are those of the fullest moment, the end of a micro-batch's forward pass: what the state of
the run takes, what autograd keeps, and what the loss works in. Not in it: the device's own context
and communication buffers, one to two GiB, and what the allocator cannot use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from foundry_core.models.sizes import SLICE_ELEMENTS_DEVICE
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.sizing.parts import DecoderPart, Part, Pass
from foundry_core.training.sizing.shapes import FP32, Bytes
from foundry_core.training.sizing.workload import Rows

HALF = 2


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """Elements, and those of them that are trained. flops: of a step's forward and backward pass;
    again: of what of it is computed again."""

    parameters: int
    trained: int
    flops: float
    again: float


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """memory: what → bytes on each GPU. rows: of a step, of all GPUs together."""

    parts: Mapping[str, PartCost]
    rows: Sequence[Rows]
    steps: int
    workers: int
    memory: Mapping[str, float] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts.values())

    @property
    def trained(self) -> int:
        return sum(part.trained for part in self.parts.values())

    @property
    def bytes_per_gpu(self) -> float:
        return sum(self.memory.values())

    @property
    def samples(self) -> int:
        """Of all steps."""
        return self.steps * sum(row.samples for row in self.rows)

    @property
    def tokens(self) -> int:
        """Positions that the decoder sees, in all steps."""
        return self.steps * sum(row.samples * row.positions for row in self.rows)

    @property
    def flops(self) -> float:
        """Of all steps, forward and backward, what is computed again not counted."""
        return self.steps * sum(part.flops for part in self.parts.values())

    def gpu_hours(self, peak: float, mfu: float) -> float:
        """peak: FLOP/s of a GPU; mfu: the share of it that the products reach, those that are
        computed again among them."""
        again = self.steps * sum(part.again for part in self.parts.values())
        return (self.flops + again) / (peak * mfu) / 3600


def stage_cost(
    parts: Sequence[Part],
    rows: Sequence[Rows],
    steps: int,
    training: TrainingConfig,
    resources: TrainResources,
    frozen: Sequence[str] = (),
) -> StageCost:
    """parts: in the order in which data pass through. frozen: as in the recipe; a pattern that
    stops a piece of a part is left out of account."""
    size = Bytes.of(training.precision)
    trained = {part.name: _trained(part, frozen) for part in parts}
    counted = {row.modality: _flows(parts, row, size, trained) for row in rows}
    again = resources.recompute
    costs = {part.name: _part_cost(part, rows, counted, trained, again) for part in parts}
    memory = _state(parts, trained, rows, training, resources)
    memory |= _activations(rows, counted, resources)
    memory["loss"] = _loss(parts, rows, size, resources)
    return StageCost(
        parts=costs,
        rows=rows,
        steps=steps,
        workers=resources.workers,
        memory={name: value for name, value in memory.items() if value},
    )


def step_flops(parts: Sequence[Part], rows: Sequence[Rows], trained: Mapping[str, int]) -> float:
    """Of one step's forward and backward pass. trained: elements of each part that are."""
    size = Bytes.of("fp32")
    counted = {row.modality: _flows(parts, row, size, trained) for row in rows}
    return sum(_part_cost(part, rows, counted, trained, ()).flops for part in parts)


@dataclass(frozen=True, kw_only=True)
class _Flow:
    """A row in a part. differentiated: gradients pass through it; asked: and on, to the part
    before."""

    passed: Pass
    differentiated: bool
    asked: bool


def _flows(
    parts: Sequence[Part], row: Rows, size: Bytes, trained: Mapping[str, int]
) -> dict[str, _Flow]:
    found: dict[str, _Flow] = {}
    begun = False
    for part in parts:
        passed = part.passed(row, size)
        before, begun = begun, begun or (trained[part.name] > 0 and passed != Pass())
        found[part.name] = _Flow(passed=passed, differentiated=begun, asked=before)
    return found


def _trained(part: Part, frozen: Sequence[str]) -> int:
    if any(_stops(pattern, part.place) for pattern in frozen):
        return 0
    return part.adapters + part.whole if part.adapted else part.parameters


def _stops(pattern: str, place: str) -> bool:
    """Whether a pattern of names holds for all that lies at a place."""
    name = f"{place}.any" if place else "any"
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _part_cost(
    part: Part,
    rows: Sequence[Rows],
    counted: Mapping[str, Mapping[str, _Flow]],
    trained: Mapping[str, int],
    recompute: Sequence[str],
) -> PartCost:
    flops = again = 0.0
    learns = trained[part.name] == part.parameters
    for row in rows:
        flow = counted[row.modality][part.name]
        one = flow.passed
        forward = one.linear + one.scores
        flops += row.samples * one.glance
        backward = 0.0
        if flow.differentiated:
            backward = one.linear - one.leaf + 2 * one.scores
            backward -= 0.0 if flow.asked else one.entry
        if learns:
            backward += one.linear
        flops += row.samples * (forward + backward)
        if part.name in recompute and flow.differentiated:
            again += row.samples * forward
    return PartCost(
        parameters=part.parameters, trained=trained[part.name], flops=flops, again=again
    )


def _state(
    parts: Sequence[Part],
    trained: Mapping[str, int],
    rows: Sequence[Rows],
    training: TrainingConfig,
    resources: TrainResources,
) -> dict[str, float]:
    """What is there whether or not a batch is."""
    total, learning = sum(part.parameters for part in parts), sum(trained.values())
    half = training.precision == "bf16_weights"
    sharded = resources.strategy != "ddp" and (resources.workers > 1 or half)
    among = (resources.shard_size or resources.workers) if sharded else 1
    found = {
        "weights": FP32 * total / among,
        "gradients": FP32 * learning / among,
        "moments": 2 * FP32 * learning / among,
        "average": FP32 * learning / among if training.ema else 0,
    }
    if training.precision == "bf16":
        logits = any(row.targets for row in rows)
        found["bf16 copies"] = HALF * sum(part.multiplied(logits) for part in parts)
    if sharded:
        # The root's until the step ends, and two blocks at a time.
        root = total - sum(part.n_blocks * part.block for part in parts)
        at_once = root + 2 * max(part.block for part in parts)
        found["gathered weights"] = (HALF if half else FP32) * at_once
        if _pieces(rows, resources) > 1:
            found["gradients not yet shared"] = FP32 * learning
    elif resources.workers > 1:
        found["gradient buckets"] = FP32 * learning
    return found


def _pieces(rows: Sequence[Rows], resources: TrainResources) -> int:
    """Micro-batches of a step."""
    each = sum(row.samples for row in rows) // resources.workers
    return -(-each // resources.micro_batch) if resources.micro_batch else 1


def _activations(
    rows: Sequence[Rows],
    counted: Mapping[str, Mapping[str, _Flow]],
    resources: TrainResources,
) -> dict[str, float]:
    kept, meanwhile = 0.0, 0.0
    among = resources.workers * _pieces(rows, resources)
    for row in rows:
        for name, flow in counted[row.modality].items():
            if not flow.differentiated:
                continue
            samples, one = row.samples / among, flow.passed
            again = name in resources.recompute
            kept += samples * (one.rest + (one.inputs if again else one.blocks))
            if again:
                meanwhile = max(meanwhile, samples * one.block)
    return {"activations": kept, "one block again": meanwhile}


def _loss(
    parts: Sequence[Part], rows: Sequence[Rows], size: Bytes, resources: TrainResources
) -> float:
    """Of the linear cross-entropy: the gradient of its weight, a piece of it, and a slice of
    logits: themselves and their softmax in float32, its gradient as products take it."""
    among = resources.workers * _pieces(rows, resources)
    targets = max((row.targets * row.samples / among for row in rows), default=0)
    for part in parts:
        if targets and isinstance(part, DecoderPart):
            logits = min(targets * part.vocabulary, SLICE_ELEMENTS_DEVICE)
            return (FP32 + size.product) * part.table + (2 * FP32 + size.product) * logits
    return 0.0
