"""What a training run is (TrainingConfig: identity) and what it may use (TrainResources: not); and
the cross-checks that the training stages share.

Imports no torch: planning validates these.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from foundry_core.config.canonical import OmitWhen
from foundry_core.config.registry import OneOf
from foundry_core.data.loading.config import CAPTIONS, ROBOT, TEXT
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config, Resources
from foundry_core.training.sinks import SINKS
from foundry_core.training.sinks.base import MetricSink
from foundry_core.training.validation.config import ValidationConfig


def _count(value: Any) -> Any:
    """YAML 1.1 reads `2e6` as text and JSON as a float: both mean the count 2000000."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Count = Annotated[int, BeforeValidator(_count), Field(ge=0)]


class OptimizerConfig(Config):
    """AdamW. Decay applies to matrices only: never to norms, biases, positions or gates."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    betas: tuple[float, float] = Field(
        (0.9, 0.95), description="decay of the first and second moment, each in [0, 1)"
    )
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(0.01, ge=0, description="of matrices, per unit of learning rate")

    @model_validator(mode="after")
    def _betas_below_one(self) -> "OptimizerConfig":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas} must lie in [0, 1)")
        return self


class ScheduleConfig(Config):
    """Learning rate as a pure function of the step (optim.py).

    wsd: warm up, hold, then fall over the last `decay_fraction` of the steps. What budgets share, a
    larger one continues from (`trunk.py`): with constant all steps, with wsd those before the fall,
    with a stated `length` all, with cosine none.
    """

    kind: Literal["cosine", "constant", "wsd"] = Field(
        "cosine",
        description="of the learning rate after warm-up: cosine fall, constant, or hold and fall "
        "(wsd)",
    )
    warmup: int = Field(50, ge=0, description="steps of linear warm-up")
    min_ratio: float = Field(0.02, ge=0, le=1, description="last rate / peak rate")
    decay_fraction: float = Field(0.2, gt=0, le=1, description="wsd only")
    length: Annotated[Count | None, OmitWhen(None)] = Field(
        None,
        ge=1,
        description="cosine and wsd: steps after which the rate is at its last; null: the budget's",
    )

    @model_validator(mode="after")
    def _falls(self) -> "ScheduleConfig":
        if self.kind == "constant" and self.length is not None:
            raise ValueError(f"length = {self.length}: a constant rate does not fall; leave it out")
        return self


class FixedEma(Config):
    """The same decay at every update."""

    kind: Literal["fixed"] = "fixed"
    decay: float = Field(
        0.99, ge=0, lt=1, description="share of the average that stays at an update"
    )


class PowerEma(Config):
    """decay(n) = clip(1 − (1 + s/inv_gamma)^−power, min, max), s = n − update_after − 1."""

    kind: Literal["power"] = "power"
    inv_gamma: float = Field(
        1.0, gt=0, description="updates; the larger, the later the average becomes slow"
    )
    power: float = Field(0.75, gt=0, description="exponent of the warm-up of decay")
    update_after: int = Field(0, ge=0, description="updates before the average begins")
    min_decay: float = Field(0.0, ge=0, le=1, description="lower bound of decay")
    max_decay: float = Field(0.9999, ge=0, le=1, description="upper bound of decay")


EmaConfig = Annotated[FixedEma | PowerEma, Field(discriminator="kind")]


class NonFiniteConfig(Config):
    """What a NaN or infinite loss or gradient norm does: stop, or drop the update up to a bound."""

    policy: Literal["stop", "skip"] = Field(
        "stop", description="stop: the run ends; skip: the update is dropped"
    )
    max_skips: int = Field(10, ge=1, description="skipped updates of the whole run, policy skip")


class Fp8Config(Config):
    """Products of the blocks' large linears, forward and backward, in 8-bit floats (torchao). Not
    of the output layer, of attention, of what is frozen or has adapters."""

    scaling: Literal["tensor", "row"] = Field(
        "tensor",
        description="what shares a scale. tensor: a whole operand; row: each row of it, "
        "closer to bf16, on Hopper and later",
    )
    least: int = Field(
        1024, ge=16, description="linears with a side below this are computed as before"
    )
    emulated: bool = Field(
        False,
        description="the same roundings around other products: on any hardware, and slow; to try "
        "a recipe",
    )


class TrainingConfig(Config):
    """Everything of the optimisation that can change the weights. Exactly one budget is set."""

    steps: Count | None = Field(None, description="optimizer steps; 0 keeps the initial weights")
    samples: Count | None = Field(None, description="samples over all modalities")
    tokens: Count | None = Field(None, description="text tokens (train_llm)")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="AdamW")
    schedule: ScheduleConfig = Field(ScheduleConfig(), description="of the learning rate")
    clip: float | None = Field(1.0, gt=0, description="bound on the global gradient norm")
    ema: EmaConfig | None = Field(
        None, description="moving average of the weights, which the stage leaves; null: none"
    )
    keep_raw: bool = Field(
        True,
        description="with ema: the weights it followed are kept, too, as raw.safetensors beside "
        "the average",
    )
    precision: Literal["fp32", "bf16", "bf16_weights"] = Field(
        "fp32",
        description="of products; weights, moments and sums of gradients are fp32 in any case. "
        "bf16: products alone. bf16_weights: the residual stream, too, on bf16 copies of the "
        "weights, statistics of norms and softmax in fp32 (fastest on a GPU; needs resources."
        "strategy fsdp or hsdp)",
    )
    compile: Literal["none", "blocks"] = Field(
        "none",
        description="blocks: each transformer block through torch.compile, for long runs: minutes "
        "before the first step. Rounds otherwise than uncompiled code; data.pad_multiple at the "
        "longest row saves compiling for each length",
    )
    fp8: Annotated[Fp8Config | None, OmitWhen(None)] = Field(
        None,
        description="products of large linears in 8-bit floats, on GPUs of Ada, Hopper and later; "
        "{} for the defaults; to be compiled (compile: blocks); null: as precision says",
    )
    z_loss: float = Field(0.0, ge=0, description="coefficient of mean(logsumexp²), text losses")
    non_finite: NonFiniteConfig = Field(
        NonFiniteConfig(), description="what a NaN or infinite loss or gradient does"
    )
    validation: Annotated[ValidationConfig | None, OmitWhen(None)] = Field(
        None, description="{} for the defaults; null: none"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> "TrainingConfig":
        given = [n for n in ("steps", "samples", "tokens") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"training needs exactly one budget of steps, samples, tokens; got {given}"
            )
        return self

    @model_validator(mode="after")
    def _fp8_on_bf16(self) -> "TrainingConfig":
        if self.fp8 is not None and self.precision == "fp32":
            raise ValueError(
                "fp8 is of products that are bf16 otherwise: set precision to bf16 or bf16_weights"
            )
        return self

    def total_steps(self, *, samples_per_step: int, tokens_per_step: int | None = None) -> int:
        """Optimizer steps of the budget, rounded down; a non-zero budget below one step is refused.

        Counts are those of the global batch, so the number does not depend on workers.
        """
        if self.steps is not None:
            return self.steps
        if self.samples is not None:
            name, budget, unit = "samples", self.samples, samples_per_step
        elif tokens_per_step is not None:
            name, budget, unit = "tokens", self.tokens or 0, tokens_per_step
        else:
            raise FoundryError(
                f"training.tokens={self.tokens} has no meaning in this stage: its batches hold no "
                "text",
                "set training.steps or training.samples",
            )
        if 0 < budget < unit:
            raise FoundryError(
                f"training.{name}={budget} is less than one step's {unit} {name}",
                "raise the budget or lower the batch size",
            )
        return budget // unit


class TrainResources(Resources):
    """What a training run may use; none of it changes the result beyond float tolerance. What is
    added in another order by it is recorded (`TrainStage.numerics`).

    cpus: threads of one worker. One worker runs in this process; several run in Ray Train.
    """

    num_workers: int | None = Field(None, ge=1, description="default: one per whole GPU, else 1")
    strategy: Literal["ddp", "fsdp", "hsdp"] = Field(
        "ddp",
        description="ddp: a copy of everything per worker; fsdp: weights, moments and average "
        "split among all workers; hsdp: among groups of shard_size, copies between groups",
    )
    shard_size: int | None = Field(
        None, ge=2, description="hsdp: workers that share one copy, those of a machine, say"
    )
    micro_batch: int | None = Field(
        None, ge=1, description="samples per pass over all modalities; default: the whole batch"
    )
    keep_trunk: bool = Field(
        True,
        description="where the schedule lets a larger budget continue: the state it continues from "
        "stays in the store, three times the bytes of the weights, four with ema",
    )
    extend: Literal["exact", "close", "never"] = Field(
        "exact",
        description="from a smaller budget's state. exact: if it was computed with the same code, "
        "packages and numerics, so that the result is a straight run's to the bit; close: also if "
        "not, to the rounding of floats; never: from zero",
    )
    log_every: int = Field(20, ge=1, description="steps per row of metrics.jsonl")
    checkpoint_every_seconds: float | None = Field(
        30.0, gt=0, description="seconds between checkpoints; null: by steps alone"
    )
    checkpoint_every_steps: int | None = Field(
        None,
        ge=1,
        description="steps between checkpoints, besides those by time; null: by time alone",
    )
    recompute: tuple[Literal["language", "vision", "head"], ...] = Field(
        (),
        description="parts whose blocks keep their inputs alone and run again in the backward "
        "pass: a third more work there, a fraction of the memory",
    )
    part_norms: bool = Field(
        False, description="the gradient's norm of each part, too, in metrics.jsonl"
    )
    peak_tflops: float | None = Field(
        None, gt=0, description="dense bf16 TFLOP/s of one device, for MFU; null: by its name"
    )
    loader_workers: int = Field(
        0, ge=0, description="processes that prepare batches; 0: the training process does"
    )

    sinks: tuple[Annotated[MetricSink, OneOf(SINKS, "kind")], ...] = Field(
        (), description="who else sees the rows of metrics.jsonl while they grow"
    )

    @property
    def workers(self) -> int:
        return self.num_workers or max(1, int(self.gpus))

    @model_validator(mode="after")
    def _shards(self) -> "TrainResources":
        if (self.strategy == "hsdp") != (self.shard_size is not None):
            raise ValueError("shard_size belongs to strategy hsdp, which needs one")
        if self.shard_size is not None and self.workers % self.shard_size:
            raise ValueError(
                f"shard_size {self.shard_size} does not divide the {self.workers} workers"
            )
        return self


def check_divides(batch: int, workers: int, modality: str) -> None:
    """Raises FoundryError for a batch that workers cannot share equally."""
    if batch % workers:
        raise FoundryError(
            f"{modality} batch of {batch} does not divide among {workers} workers",
            "choose a number of workers that divides the batch of every modality",
        )


def check_micro_batch(sizes: Mapping[str, int], micro_batch: int | None) -> None:
    """Raises unless every modality's batch divides into the same number of parts."""
    if micro_batch is None:
        return
    parts = -(-sum(sizes.values()) // micro_batch)
    for modality, size in sizes.items():
        if size % parts:
            raise FoundryError(
                f"{modality} batch of {size} does not divide into {parts} micro-batches "
                f"(micro_batch={micro_batch}, {sum(sizes.values())} samples per worker in all)",
                "choose resources.micro_batch so that every modality's batch divides",
            )


def check_gpus(gpus: float, workers: int) -> None:
    """Raises FoundryError for GPUs that workers cannot hold: each takes whole ones, or a part of
    one."""
    each = gpus / workers
    if each > 1 and not each.is_integer():
        raise FoundryError(
            f"gpus = {gpus:g} among {workers} workers are {each:g} for each, not whole ones "
            "and no part of one",
            "leave num_workers out (one for each GPU), or choose one that divides gpus",
        )


def check_fp8_resources(fp8: Fp8Config | None, gpus: float) -> None:
    """Raises FoundryError for products in 8-bit floats without a GPU."""
    if fp8 is not None and not fp8.emulated and not gpus:
        raise FoundryError(
            "training.fp8 needs GPUs with products of 8-bit floats (Ada, Hopper or later), and "
            "resources.gpus is 0",
            "set resources.gpus, or leave training.fp8 out; training.fp8.emulated tries the recipe "
            "without the speed",
        )


MODALITIES = (TEXT, CAPTIONS, ROBOT)
