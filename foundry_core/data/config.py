"""Configs of data that recipes embed. No NumPy, no torch: planning imports this."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from foundry_core.pipeline.stage import Config

Turn = Literal[90, 180, 270]
# [first, stop) of steps, one after the other.
Runs = Sequence[Sequence[int]]
Size = Annotated[tuple[int, int], Field(description="(height, width) in pixels")]


class WindowConfig(Config):
    """Which steps around an anchor make a training window, and how far it may hang over."""

    past: int = Field(0, ge=0, description="steps before the anchor")
    future: int = Field(7, ge=0, description="steps after the anchor")
    max_padding_left: int = Field(0, ge=0, description="drop anchors that need more on the left")
    max_padding_right: int = Field(7, ge=0, description="drop anchors that need more on the right")
    padding: Literal["copy", "zero", "reflect"] = Field(
        "copy",
        description="steps beyond an episode's ends: copy repeats the end, zero is zeros, reflect "
        "runs back",
    )
    stride: int = Field(1, ge=1, description="every how many steps an anchor is tried")

    @property
    def length(self) -> int:
        return self.past + 1 + self.future


class DepthConfig(Config):
    """Depth that is kept, as 16-bit PNG files, turned and brought to `image.size` as pictures are,
    but by nearest neighbour: a mean over an edge is a surface that does not exist. What is no
    depth, or further than 65535 counts, is 0."""

    cameras: tuple[str, ...] = Field(min_length=1, description="of the mapping or the source")
    metres: float = Field(1e-3, gt=0, description="that one count stands for")


class SplitConfig(Config):
    """What is set aside for validation, by a hash of (salt, id): what is added later moves nothing
    that is there, and a larger fraction keeps what a smaller one set aside. Training parts lie in
    the folder itself, the others in `validation/`, a dataset of its own.
    """

    fraction: float = Field(gt=0, lt=1, description="share of the samples that is set aside")
    salt: str = Field("validation", description="another one sets others aside")
    group: str | None = Field(
        None,
        description="regular expression: what it finds in an id (its groups, where it has some) is "
        "hashed instead, so that one session or scene falls on one side",
    )

    @field_validator("group")
    @classmethod
    def _compiles(cls, group: str | None) -> str | None:
        try:
            re.compile(group or "")
        except re.error as error:
            raise ValueError(f"{group!r} is no regular expression: {error}") from None
        return group


class StillConfig(Config):
    """Which windows show nothing that moves and are left out; see data/convert/still.py."""

    fields: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="stored fields that are watched, and every gripper; null: all positions, "
        "rotations, joints and grippers",
    )
    tolerance: Mapping[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description="by field or glob, in the field's own unit, of a rotation its angle; without "
        "one: 1 mm, 0.01 rad, a hundredth of a gripper's stroke",
    )
    keep: int = Field(0, ge=0, description="anchors to keep of each still stretch, its first ones")


WEIGHTS = (1e-9, 1e9)
"""The smallest and the largest weight of a sample that is ever drawn: 0 says never."""


class WeightRule(Config):
    """A factor on the weights of the episodes of which all that is said here is true."""

    weight: float = Field(ge=0, allow_inf_nan=False, description="0: never drawn")
    success: Literal["true", "false", "unknown"] | None = Field(None, description="of the episode")
    task: str | None = Field(None, description="glob over its task")
    source: str | None = Field(None, description="glob over its name in the source, as reports say")
    shorter_than_s: float | None = Field(None, gt=0, description="its length, in seconds")
    longer_than_s: float | None = Field(None, gt=0, description="its length, in seconds")

    @field_validator("success", mode="before")
    @classmethod
    def _as_word(cls, success: Any) -> Any:
        return str(success).lower() if isinstance(success, bool) else success

    @model_validator(mode="after")
    def _says_of_which(self) -> Self:
        if all(value is None for name, value in self if name != "weight"):
            raise ValueError(
                "a rule says of which episodes: success, task, source, shorter_than_s or "
                "longer_than_s (a whole dataset has its share in data.robot.weights)"
            )
        return self


class Shuffle(Config):
    """How samples are mixed over the shards of a dataset, once and for all readers."""

    seed: int = Field(0, ge=0, description="of the order")
    samples_per_shard: int = Field(1024, ge=1, description="samples in one shard")


class PoseGroup(Config):
    """One arm: its poses that are expressed relative to its measured pose at the anchor.

    Names are field prefixes; a pose `p` is the pair of fields `p__xyz` [3] and `p__rot_6d` [6].
    """

    reference: str = Field(description="prefix of the measured pose")
    poses: tuple[str, ...] = Field(
        min_length=1, description="prefixes of the poses described relative to it"
    )

    def names(self) -> list[str]:
        """Fields of the reference and of the poses, each once."""
        prefixes = dict.fromkeys((self.reference, *self.poses))
        return [f"{prefix}{part}" for prefix in prefixes for part in ("__xyz", "__rot_6d")]


class ImageConfig(Config):
    """What becomes of a camera's images on their way into shards.

    size None keeps the source's bytes as they are wherever they are JPEG already.
    """

    size: Size | None = Field(
        None, description="(height, width) in pixels; null: as the source has it"
    )
    method: Literal["center_crop", "resize_no_crop", "resize_fit"] = Field(
        "center_crop",
        description="center_crop: fill and cut; resize_no_crop: stretch; resize_fit: fit in and "
        "leave black bars",
    )
    jpeg_quality: int = Field(95, ge=1, le=100, description="of the stored pictures, 1 to 100")

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"image size {self.size} must be positive (height, width)")
        return self
