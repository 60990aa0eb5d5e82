"""Action chunking with a conditional variational autoencoder."""

from typing import TYPE_CHECKING, Literal, Unpack

from pydantic import Field

from foundry_core.models.heads.base import HeadSizes, TransformerHeadConfig
from foundry_core.models.sizes import positive

if TYPE_CHECKING:
    from foundry_core.models.heads.networks.base import ActionHead


class ActHeadConfig(TransformerHeadConfig):
    """ACT (Zhao et al. 2023): in training a style encoder reads the true chunk and says how it was
    done, in `latent` numbers; the chunk is predicted from that and the observation, with absolute
    errors. Acting, the style is the prior's mean: one chunk per observation, whatever the seed.
    """

    kind: Literal["act"] = "act"
    latent: int = positive(32, description="numbers that say how a chunk was done")
    style_layers: int = positive(
        4, description="transformer blocks of the style encoder, which only trains"
    )
    kl_weight: float = Field(10.0, ge=0, description="of the style's distance from the prior")

    def build(self, **sizes: Unpack[HeadSizes]) -> "ActionHead":
        from foundry_core.models.heads.networks.act import ActHead

        return ActHead(self, **sizes)


HEAD = ActHeadConfig
