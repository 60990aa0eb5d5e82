"""Plain regression."""

from typing import TYPE_CHECKING, Literal, Unpack

from pydantic import Field

from foundry_core.models.heads.base import HeadSizes, TransformerHeadConfig

if TYPE_CHECKING:
    from foundry_core.models.heads.networks.base import ActionHead


class RegressionHeadConfig(TransformerHeadConfig):
    """Predicts the chunk in one pass: the plain baseline."""

    kind: Literal["regression"] = "regression"
    loss: Literal["squared", "absolute"] = Field(
        "squared", description="of the error of normalised actions"
    )

    def build(self, **sizes: Unpack[HeadSizes]) -> "ActionHead":
        from foundry_core.models.heads.networks.regression import RegressionHead

        return RegressionHead(self, **sizes)


HEAD = RegressionHeadConfig
