"""Direct regression of the action chunk: the baseline a generative head has to beat."""

from typing import Unpack

from torch import Tensor

from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.networks.base import ActionHead, Observation, Request, Targets
from foundry_core.models.heads.networks.trunk import HeadTrunk
from foundry_core.models.heads.regression import RegressionHeadConfig
from foundry_core.models.noise import Key


class RegressionHead(ActionHead):
    """K learned queries read condition and proprio; no noise, no time."""

    def __init__(self, config: RegressionHeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__()
        self.config = config
        self.trunk = HeadTrunk(config, time=None, **sizes)

    def predict(self, condition: Tensor, proprio: Tensor | None) -> Tensor:
        """[B,C,Dc], [B,S,P] → float32 [B,K,A]."""
        context = self.trunk.context(condition, proprio)
        # The queries are the trunk's learned action positions alone.
        queries = context.new_zeros(context.shape[0], self.trunk.horizon, self.config.dim)
        return self.trunk(context, queries)

    def training_loss_terms(
        self, seen: Observation, targets: Targets, key: Key
    ) -> tuple[Tensor, Tensor]:
        """Squared or absolute errors; nothing is drawn, so key is unread."""
        error = self.predict(seen.features, seen.proprio) - targets.known
        error = error.square() if self.config.loss == "squared" else error.abs()
        return targets.total(error), targets.count

    def chunk(self, seen: Observation, request: Request) -> Tensor:
        return self.predict(seen.features, seen.proprio)
