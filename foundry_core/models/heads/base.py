"""What an action head's config declares. Torch-free: planning reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NotRequired, Self, TypedDict, Unpack

from pydantic import Field, model_validator

from foundry_core.errors import FoundryError
from foundry_core.models.sizes import check_multiple, positive, swiglu_dim
from foundry_core.pipeline.stage import Config

if TYPE_CHECKING:
    import numpy as np

    from foundry_core.models.heads.networks.base import ActionHead

Need = Literal["features", "keys_values", "decoder"]
"""What a head may read of a backbone. features: hidden states, projected or tapped; keys_values:
those of every layer of its decoder; decoder: the language model itself, which reads tokens and says
how likely the next one is. Camera images, words and the robot's state are there for every head."""

ALL_NEEDS: frozenset[Need] = frozenset(("features", "keys_values", "decoder"))


@dataclass(frozen=True, kw_only=True)
class KeyValueShape:
    """Of a decoder's cache: layers, key heads, their width, and the base of its rotary angles."""

    layers: int
    heads: int
    dim: int
    theta: float


class HeadSizes(TypedDict):
    """What a head takes in and gives out; known once backbone and data are. keys_values: given to
    heads that need these."""

    condition_dim: int
    proprio_dim: int
    proprio_steps: int
    horizon: int
    action_dim: int
    keys_values: NotRequired[KeyValueShape]


class HeadConfig(Config):
    """Base of every head's config, chosen by `kind`.

    What a training stage finds out comes into the config, which is saved with the policy: the ids
    of the tokens that it speaks, what was fitted to the training set's actions.
    """

    kind: str

    @property
    def needs(self) -> frozenset[Need]:
        """What it reads of the backbone; checked when a pipeline is planned."""
        return frozenset(("features",))

    @property
    def teaches_keys_values(self) -> bool:
        """Whether its gradients reach the backbone through keys and values."""
        return "keys_values" in self.needs

    def check_keys_values(self, shape: KeyValueShape) -> None:
        """FoundryError where it cannot attend to a cache of this shape."""

    @property
    def new_tokens(self) -> Sequence[str]:
        """Tokens that the vocabulary grows by."""
        return ()

    def speaking(self, text_tokens: Sequence[int], new_tokens: Sequence[int]) -> Self:
        """With the ids of its tokens. text_tokens: those of the vocabulary that stand for text, in
        its order; new_tokens: of `new_tokens`. FoundryError where there are too few."""
        return self

    @property
    def fitted_on(self) -> int:
        """How many chunks of the training set it is fitted to before it is built; 0: none."""
        return 0

    def fitted(self, actions: "np.ndarray") -> Self:
        """With what it learns from normalised chunks float [n,K,A], 0 where a robot has no such
        dimension."""
        return self

    def build(self, **sizes: Unpack[HeadSizes]) -> "ActionHead":
        """The head with fresh weights, drawn from torch's generator. Imports torch here, and
        nowhere before. proprio_dim 0: the robot's state is not read."""
        raise NotImplementedError


class TransformerHeadConfig(HeadConfig):
    """Base of heads on the transformer of networks/trunk.py."""

    dim: int = positive(description="width of the head; n_heads divide it")
    n_layers: int = positive(description="transformer blocks")
    n_heads: int = positive(description="heads of attention")
    ffn_dim: int | None = positive(None, description="null: 256·ceil(floor(8·dim/3)/256)")
    norm: Literal["layer", "rms"] = Field("layer", description="layer: LayerNorm; rms: RMSNorm")
    norm_eps: float = Field(1e-5, gt=0, description="added to the variance in norms")

    @model_validator(mode="after")
    def _divisible(self) -> "TransformerHeadConfig":
        check_multiple("dim", self.dim, "n_heads", self.n_heads)
        return self

    @property
    def hidden_dim(self) -> int:
        return self.ffn_dim or swiglu_dim(self.dim)


def check_needs(head: HeadConfig, offers: frozenset[Need], backbone: str) -> None:
    """FoundryError, naming both, for a head that needs what a kind of backbone does not have."""
    for need in sorted(head.needs - offers):
        raise FoundryError(
            f"the action head {head.kind!r} needs {_CALLED[need]}, which a backbone of kind "
            f"{backbone!r} does not have",
            "take a vision-language model as backbone, or one of the heads that read features",
        )


_CALLED: dict[Need, str] = {
    "features": "features of the observation",
    "keys_values": "the keys and values of a decoder's layers",
    "decoder": "a language model that reads and says tokens",
}
