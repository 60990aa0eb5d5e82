"""Base of heads that say actions as tokens of the language model."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.models.heads.base import HeadConfig, Need


class TokenHeadConfig(HeadConfig):
    """Actions are tokens that the backbone reads and says, one after the other, behind `<obs>`.

    Loss: nats per action element, of a softmax over these tokens alone; acting is confined to
    them, too. temperature 0 takes the likeliest token at each place, which finds one mode; above
    it tokens are drawn, and modes with them.
    """

    rows: Literal["last", "new"] = Field(
        "last",
        description="last: the vocabulary's last text tokens, its rarest, get a new meaning; new: "
        "rows of their own, which start as the mean of all others",
    )
    temperature: float = Field(
        0.0, ge=0, description="0: the likeliest token at each place; above: tokens are drawn"
    )
    token_ids: tuple[int, ...] | None = Field(None, description="null: set by the stage")

    @property
    def vocabulary(self) -> int:
        """How many tokens it speaks."""
        raise NotImplementedError

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset(("decoder",))

    @property
    def new_tokens(self) -> Sequence[str]:
        if self.rows == "last":
            return ()
        return [f"<|action_{number}|>" for number in range(self.vocabulary)]

    def speaking(self, text_tokens: Sequence[int], new_tokens: Sequence[int]) -> Self:
        if self.token_ids is not None:
            return self
        chosen = new_tokens if self.rows == "new" else text_tokens[-self.vocabulary :]
        if len(chosen) < self.vocabulary:
            raise FoundryError(
                f"the action head {self.kind!r} speaks {self.vocabulary} tokens, the vocabulary "
                f"has {len(chosen)} for text",
                "set model.head.rows to new, which adds rows",
            )
        update: dict[str, Any] = {"token_ids": tuple(chosen)}
        return self.model_copy(update=update)
