"""Denoising diffusion."""

from typing import TYPE_CHECKING, Literal, Unpack

from pydantic import Field, model_validator

from foundry_core.models.heads.base import HeadSizes, TransformerHeadConfig
from foundry_core.models.sizes import positive

if TYPE_CHECKING:
    from foundry_core.models.heads.networks.base import ActionHead


class DiffusionHeadConfig(TransformerHeadConfig):
    """Denoising diffusion on a squared-cosine schedule of `train_steps` levels, predicting noise.

    Samples with DDIM (deterministic after the first draw) or DDPM (noise at every step).
    """

    kind: Literal["diffusion"] = "diffusion"
    time: Literal["adaln", "sum", "token"] = Field(
        "sum",
        description="how the noise level comes in: adaln scales and shifts every block, sum adds "
        "to the action tokens, token is one more token",
    )
    train_steps: int = positive(100, description="noise levels")
    num_noise_samples: int = positive(1, description="draws per observation, sharing it")
    sampler: Literal["ddim", "ddpm"] = Field(
        "ddim", description="ddim: noise in the first draw alone; ddpm: at every step"
    )
    steps: int = positive(10, description="denoising steps per action chunk")
    clip: float = Field(3.0, gt=0, description="bound on predicted actions while denoising")

    @model_validator(mode="after")
    def _levels(self) -> "DiffusionHeadConfig":
        if self.steps > self.train_steps:
            raise ValueError(f"steps {self.steps} exceeds train_steps {self.train_steps}")
        return self

    def build(self, **sizes: Unpack[HeadSizes]) -> "ActionHead":
        from foundry_core.models.heads.networks.diffusion import DiffusionHead

        return DiffusionHead(self, **sizes)


HEAD = DiffusionHeadConfig
