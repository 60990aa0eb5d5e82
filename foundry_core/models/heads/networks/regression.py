"""Direct regression of the action chunk: the baseline a generative head has to beat."""

from typing import Unpack

import torch
from torch import Tensor

from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.networks.base import ActionHead
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
        self,
        condition: Tensor,
        proprio: Tensor | None,
        actions: Tensor,
        action_mask: Tensor,
        key: Key,
    ) -> tuple[Tensor, Tensor]:
        """Squared or absolute errors; nothing is drawn, so key is unread."""
        target = torch.where(action_mask, actions.float(), 0.0)
        error = self.predict(condition, proprio) - target
        error = error.square() if self.config.loss == "squared" else error.abs()
        error = torch.where(action_mask, error, 0.0)
        return error.sum(), action_mask.sum(dtype=torch.float32)

    @torch.no_grad()
    def sample(
        self,
        condition: Tensor,
        proprio: Tensor | None,
        key: Key,
        *,
        action_mask: Tensor | None = None,
        solver_steps: int | None = None,
    ) -> Tensor:
        actions = self.predict(condition, proprio)
        return actions if action_mask is None else torch.where(action_mask, actions, 0.0)
