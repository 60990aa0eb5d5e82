"""Configs of data that recipes embed. No NumPy, no torch: planning imports this."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from foundry_core.pipeline.stage import Config

Turn = Literal[90, 180, 270]
Size = Annotated[tuple[int, int], Field(description="(height, width) in pixels")]


class WindowConfig(Config):
    """Which steps around an anchor make a training window, and how far it may hang over."""

    past: int = Field(0, ge=0, description="steps before the anchor")
    future: int = Field(7, ge=0, description="steps after the anchor")
    max_padding_left: int = Field(0, ge=0, description="drop anchors that need more on the left")
    max_padding_right: int = Field(7, ge=0, description="drop anchors that need more on the right")
    padding: Literal["copy", "zero", "reflect"] = "copy"
    stride: int = Field(1, ge=1, description="every how many steps an anchor is tried")

    @property
    def length(self) -> int:
        return self.past + 1 + self.future


class Shuffle(Config):
    """How samples are mixed over the shards of a dataset, once and for all readers."""

    seed: int = Field(0, ge=0)
    samples_per_shard: int = Field(1024, ge=1)


class PoseGroup(Config):
    """One arm: its poses that are expressed relative to its measured pose at the anchor.

    Names are field prefixes; a pose `p` is the pair of fields `p__xyz` [3] and `p__rot_6d` [6].
    """

    reference: str
    poses: tuple[str, ...] = Field(min_length=1)

    def names(self) -> list[str]:
        """Fields of the reference and of the poses, each once."""
        prefixes = dict.fromkeys((self.reference, *self.poses))
        return [f"{prefix}{part}" for prefix in prefixes for part in ("__xyz", "__rot_6d")]


class ImageConfig(Config):
    """What becomes of a camera's images on their way into shards.

    size None keeps the source's bytes as they are wherever they are JPEG already.
    """

    size: Size | None = None
    method: Literal["center_crop", "resize_no_crop", "resize_fit"] = "center_crop"
    jpeg_quality: int = Field(95, ge=1, le=100)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"image size {self.size} must be positive (height, width)")
        return self
