"""What a training run reads. No torch, no NumPy: planning imports this.

The recipe says what the batches are; LoaderResources say how they are made, which changes nothing
in them.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from foundry_core.config.canonical import OmitWhen
from foundry_core.data.loading.schedule import (
    Weight,
    WeightSchedule,
    all_zero_at,
    scheduled,
)
from foundry_core.data.robot.transform_config import (
    Augment,
    ImageInput,
    NormalizationConfig,
    Prompt,
    RobotInputs,
)
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config

TEXT, CAPTIONS, ROBOT = "text", "captions", "robot"
Weights = Annotated[
    Mapping[str, Weight] | None,
    Field(
        description="share per dataset label, 0 means never, or {points: [[step, share], ...]}; "
        "null: every sample once per epoch"
    ),
]


class ModalityData(Config):
    """Shared by the modalities. batch_size counts the samples of one optimizer step, all ranks.
    split: which side of the datasets is read; statistics are of training, whatever is read."""

    batch_size: int = Field(32, ge=1, description="samples of one optimizer step, over all workers")
    weights: Weights = None
    split: Annotated[Literal["train", "validation"], OmitWhen("train")] = Field(
        "train", description="side of the datasets that is read"
    )
    loss_weight: Annotated[float, Field(ge=0)] | WeightSchedule = Field(
        1.0, description="factor on this modality's loss, or {points: [[step, factor], ...]}"
    )
    sample_weights: Annotated[bool, OmitWhen(True)] = Field(
        True,
        description="draw samples as often as the weights in the datasets say, those of weight 0 "
        "never; false: all alike",
    )

    @model_validator(mode="after")
    def _draws_something(self) -> Self:
        step = all_zero_at((self.weights or {"": 1.0}).values())
        if step is not None and scheduled((self.weights or {}).values()):
            raise ValueError(f"weights are all 0 at step {step}: nothing would be drawn")
        return self


class TextData(ModalityData):
    """Packed rows of tokens."""


class Packing(Config):
    """Several samples in one row, as documents that do not see each other."""

    length: int = Field(
        ge=8, description="tokens of a row, those of images among them; the longest sample fits"
    )


class CaptionData(ModalityData):
    """Images with a caption. images: member names; null takes all of the first sample's. packing:
    how rows are laid out, not which samples a step has; null: a row each, padded to the longest."""

    images: tuple[str, ...] | None = Field(
        None,
        description="names of a sample's images, in this order; null: all of the first sample's",
    )
    image: ImageInput = Field(ImageInput(), description="crop and size of every picture")
    prompt: Prompt = Field(Prompt(), description="words around the caption")
    question: Annotated[str | None, OmitWhen(None)] = Field(
        None,
        description="name in a sample's metadata of a question: it stands in caption_prefix's "
        "place, and the caption is its answer; samples without one keep the prefix",
    )
    max_tokens: int = Field(128, ge=2, description="of prompt and caption; cut beyond, counted")
    packing: Annotated[Packing | None, OmitWhen(None)] = Field(
        None, description="rows of several samples; null: a row each, padded to the longest"
    )
    augment: Augment = Field(Augment(), description="random views in training")


class RobotData(ModalityData):
    """Windows of demonstrations.

    instruction: kind of words that a sample is given, one of them by lot and anew each epoch, in
    validation the first; "any" draws among all kinds, and takes "original" for the first.
    missing_fields "mask": a dataset without one of the action fields (a one-armed robot in a two-
    armed mix) gets zeros there and no loss; proprio zeros.
    """

    inputs: RobotInputs = Field(description="what the policy sees and predicts")
    normalization: NormalizationConfig = Field(
        NormalizationConfig(),
        description="of measured and commanded fields, by the dataset's statistics",
    )
    instruction: str = Field(
        "any",
        min_length=1,
        description="kind of words a sample is given; any: of all kinds, by lot",
    )
    missing_fields: Literal["error", "mask"] = Field(
        "error",
        description="error: every dataset has every action field; mask: zeros and no loss where "
        "one lacks it",
    )
    augment: Augment = Field(Augment(), description="random views in training")


class UnreadableConfig(Config):
    """What a sample that cannot be read does: stop the run, or be replaced by another one of its
    dataset (a pure function of what it replaces), up to `max_skips` in one process."""

    policy: Literal["stop", "skip"] = Field(
        "stop",
        description="stop: the run ends; skip: another sample of the dataset takes its place",
    )
    max_skips: int = Field(100, ge=1, description="replaced samples in one process, policy skip")


class DataConfig(Config):
    """One optimizer step's batch: a part per modality, each with its own datasets and weights."""

    text: TextData | None = Field(None, description="packed rows of tokens; null: none")
    captions: CaptionData | None = Field(None, description="images with captions; null: none")
    robot: RobotData | None = Field(None, description="windows of demonstrations; null: none")
    pad_multiple: int = Field(8, ge=1, description="token rows are padded to a multiple of this")
    unreadable: UnreadableConfig = Field(
        UnreadableConfig(), description="what a sample that cannot be read does"
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.modalities:
            raise ValueError("data names no modality: set at least one of text, captions, robot")
        return self

    @property
    def modalities(self) -> dict[str, ModalityData]:
        parts = {TEXT: self.text, CAPTIONS: self.captions, ROBOT: self.robot}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def samples_per_step(self) -> int:
        return sum(part.batch_size for part in self.modalities.values())

    @property
    def loss_weights(self) -> dict[str, Weight]:
        return {name: part.loss_weight for name, part in self.modalities.items()}

    def held_out(self, labels: Mapping[str, Collection[str]]) -> Self:
        """Of the validation sides of datasets with these labels, by modality."""
        parts = {
            name: part.model_copy(update={"split": "validation", "weights": None})
            if labels.get(name)
            else None
            for name, part in self.modalities.items()
        }
        return self.model_copy(update=parts)

    def check_labels(self, labels: Mapping[str, list[str]]) -> None:
        """labels: modality → labels of the connected datasets. For Stage.check."""
        for name, part in self.modalities.items():
            connected = sorted(labels.get(name, []))
            if not connected:
                raise FoundryError(
                    f"data.{name} is set but no {name} dataset is connected",
                    f"connect one to the input {name!r}, or remove data.{name}",
                )
            if part.weights is not None and sorted(part.weights) != connected:
                raise FoundryError(
                    f"data.{name}.weights name {sorted(part.weights)}, connected are {connected}",
                    "give every dataset a weight (0 means never), or none at all",
                )
        unused = sorted(
            name for name, some in labels.items() if some and name not in self.modalities
        )
        if unused:
            raise FoundryError(
                f"datasets are connected to {unused}, which data does not use",
                f"set data.{unused[0]} or disconnect them",
            )


class LoaderResources(Config):
    """How batches are made; changes none of them."""

    workers: int = Field(0, ge=0, description="processes; 0 makes batches in the training process")
    prefetch: int = Field(4, ge=1, description="batches each worker may be ahead")
    pin_memory: bool = Field(
        False, description="batches in page-locked memory, for copies to a GPU"
    )
    cache_bytes: int = Field(1 << 30, ge=0, description="decoded images kept, all workers together")
    window_bytes: int = Field(256 << 20, ge=0, description="cut windows kept, all workers together")
    verify: bool = Field(True, description="check a shard's digest when it is first opened")
