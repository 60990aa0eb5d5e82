"""An expert with weights of its own that attends to every layer of the backbone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Unpack

from pydantic import Field, model_validator

from foundry_core.config.registry import OneOf
from foundry_core.errors import FoundryError
from foundry_core.models.heads import HEADS
from foundry_core.models.heads.base import HeadConfig, HeadSizes, KeyValueShape, Need
from foundry_core.models.heads.flow import FlowConfig
from foundry_core.models.heads.tokens import TokenHeadConfig

if TYPE_CHECKING:
    import numpy as np

    from foundry_core.models.heads.networks.base import ActionHead


class Pi0HeadConfig(FlowConfig):
    """Flow matching by an action expert (π0, SmolVLA): layer i of it attends to the keys and values
    of the backbone's layer i, of all images and words, and to its own tokens. n_heads of the
    backbone's head width each; n_layers at most the backbone's, the first of which it reads.

    insulated: no gradient of the flow reaches the backbone (knowledge insulation, π0.5), which then
    learns actions as `tokens`, a head that speaks, alone.
    """

    kind: Literal["pi0"] = "pi0"
    attention: Literal["joint", "alternate"] = Field(
        "joint",
        description="joint: each layer reads the backbone and itself; alternate: the backbone and "
        "itself in turn (SmolVLA)",
    )
    insulated: bool = Field(
        False,
        description="no gradient of the flow reaches the backbone, which learns actions by "
        "`tokens` alone",
    )
    tokens: Annotated[HeadConfig, OneOf(HEADS, "kind")] | None = Field(
        None, description="a head that speaks (bins, fast), whose loss trains the backbone, too"
    )
    tokens_weight: float = Field(1.0, gt=0, description="of that loss")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        """Its heads are as wide as the backbone's, whatever its own width."""
        return self

    @property
    def needs(self) -> frozenset[Need]:
        both: tuple[Need, ...] = ("keys_values", *(self.tokens.needs if self.tokens else ()))
        return frozenset(both)

    @property
    def teaches_keys_values(self) -> bool:
        return not self.insulated

    def check_keys_values(self, shape: KeyValueShape) -> None:
        if self.n_layers > shape.layers:
            raise FoundryError(
                f"model.head.n_layers = {self.n_layers}: each layer of the expert reads one of the "
                f"backbone's, which has {shape.layers}",
                f"lower it to at most {shape.layers}",
            )
        if self.n_heads % shape.heads:
            raise FoundryError(
                f"model.head.n_heads = {self.n_heads} is not a multiple of the backbone's "
                f"{shape.heads} key heads",
                f"take {shape.heads}, or a multiple of it",
            )
        if self.tokens is not None and not isinstance(self.tokens, TokenHeadConfig):
            raise FoundryError(
                f"model.head.tokens is a head of kind {self.tokens.kind!r}, which speaks no tokens",
                "take bins or fast",
            )

    @property
    def new_tokens(self) -> Sequence[str]:
        return self.tokens.new_tokens if self.tokens else ()

    def speaking(self, text_tokens: Sequence[int], new_tokens: Sequence[int]) -> Self:
        return self._with(self.tokens and self.tokens.speaking(text_tokens, new_tokens))

    @property
    def fitted_on(self) -> int:
        return self.tokens.fitted_on if self.tokens else 0

    def fitted(self, actions: "np.ndarray") -> Self:
        return self._with(self.tokens and self.tokens.fitted(actions))

    def _with(self, tokens: HeadConfig | None) -> Self:
        update: dict[str, Any] = {"tokens": tokens}
        return self.model_copy(update=update)

    def build(self, **sizes: Unpack[HeadSizes]) -> "ActionHead":
        from foundry_core.models.heads.networks.pi0 import Pi0Head

        return Pi0Head(self, **sizes)


HEAD = Pi0HeadConfig
