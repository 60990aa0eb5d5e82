"""Chunks as compressed tokens: cosine transform, rounding, pairs that occur often merged."""

from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from pydantic import Field

from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.tokens import TokenHeadConfig
from foundry_core.models.sizes import positive

if TYPE_CHECKING:
    import numpy as np

    from foundry_core.models.heads.networks.base import ActionHead


class FastHeadConfig(TokenHeadConfig):
    """FAST (Pertsch et al. 2025): each dimension's cosine transform over the chunk, times `scale`
    and rounded, the slow waves of all dimensions first, as byte-pair tokens that are learnt from
    the training set. A chunk has as many tokens as it has news: a few for one that hardly moves.

    low, high, merges: null, learnt before training (networks/pieces.py) and saved with the policy.
    """

    kind: Literal["fast"] = "fast"
    scale: float = Field(10.0, gt=0, description="whole numbers per unit of a coefficient")
    pieces: int = positive(1024, description="tokens, besides the one that ends a chunk")
    chunks: int = positive(2000, description="of the training set, that the tokens are learnt from")
    low: int | None = Field(
        None, description="least rounded coefficient; null: learnt before training"
    )
    high: int | None = Field(
        None, description="largest rounded coefficient; null: learnt before training"
    )
    merges: tuple[tuple[int, int], ...] | None = Field(
        None, description="pairs of pieces that become one; null: learnt before training"
    )

    @property
    def vocabulary(self) -> int:
        return self.pieces + 1

    @property
    def fitted_on(self) -> int:
        return self.chunks if self.merges is None else 0

    def fitted(self, actions: "np.ndarray") -> Self:
        from foundry_core.models.heads.networks.pieces import coefficients, learn

        learnt = learn(coefficients(actions, self.scale), self.pieces)
        update: dict[str, Any] = learnt._asdict()
        return self.model_copy(update=update)

    def build(self, **sizes: Unpack[HeadSizes]) -> "ActionHead":
        from foundry_core.models.heads.networks.fast import FastHead

        return FastHead(self, **sizes)


HEAD = FastHeadConfig
