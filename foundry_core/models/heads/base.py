"""What an action head's config declares. Torch-free: planning reads it."""

from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from pydantic import Field, model_validator

from foundry_core.models.sizes import check_multiple, positive, swiglu_dim
from foundry_core.pipeline.stage import Config

if TYPE_CHECKING:
    from foundry_core.models.heads.networks.base import ActionHead


class HeadSizes(TypedDict):
    """What a head takes in and gives out; known once backbone and data are."""

    condition_dim: int
    proprio_dim: int
    proprio_steps: int
    horizon: int
    action_dim: int


class HeadConfig(Config):
    """Base of every head's config, chosen by `kind`."""

    kind: str

    def build(self, **sizes: Unpack[HeadSizes]) -> "ActionHead":
        """The head with fresh weights, drawn from torch's generator. Imports torch here, and
        nowhere before. proprio_dim 0: the robot's state is not read."""
        raise NotImplementedError


class TransformerHeadConfig(HeadConfig):
    """Base of heads on the transformer of networks/trunk.py."""

    dim: int = positive()
    n_layers: int = positive()
    n_heads: int = positive()
    ffn_dim: int | None = positive(None, description="null: 256·ceil(floor(8·dim/3)/256)")
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = Field(1e-5, gt=0)

    @model_validator(mode="after")
    def _divisible(self) -> "TransformerHeadConfig":
        check_multiple("dim", self.dim, "n_heads", self.n_heads)
        return self

    @property
    def hidden_dim(self) -> int:
        return self.ffn_dim or swiglu_dim(self.dim)
