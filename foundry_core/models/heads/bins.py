"""A token per action element."""

from typing import TYPE_CHECKING, Literal, Unpack

from pydantic import Field

from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.tokens import TokenHeadConfig

if TYPE_CHECKING:
    from foundry_core.models.heads.networks.base import ActionHead


class BinsHeadConfig(TokenHeadConfig):
    """Each element of the chunk is one of `bins` equal parts of [-limit, limit] of the normalised
    range, and a token (RT-2, OpenVLA): horizon · action_dim tokens, step by step."""

    kind: Literal["bins"] = "bins"
    bins: int = Field(256, ge=2, description="equal parts of [-limit, limit], a token each")
    limit: float = Field(
        1.5, gt=0, description="normalised actions beyond it are of the outermost bins"
    )

    @property
    def vocabulary(self) -> int:
        return self.bins

    def build(self, **sizes: Unpack[HeadSizes]) -> "ActionHead":
        from foundry_core.models.heads.networks.bins import BinsHead

        return BinsHead(self, **sizes)


HEAD = BinsHeadConfig
