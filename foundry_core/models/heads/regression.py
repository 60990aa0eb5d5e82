"""Direct regression of the action chunk: the baseline a generative head has to beat."""

import torch
from torch import Tensor

from foundry_core.models.config import RegressionHeadConfig
from foundry_core.models.heads.trunk import ActionHead
from foundry_core.models.noise import Coordinate


class RegressionHead(ActionHead):
    """K learned queries read condition and proprio; no noise, no time."""

    def __init__(self, config: RegressionHeadConfig, **sizes: int) -> None:
        super().__init__(config, time=None, noised=False, **sizes)

    def predict(self, condition: Tensor, proprio: Tensor | None) -> Tensor:
        """[B,C,Dc], [B,S,P] → float32 [B,K,A]."""
        context = self.trunk.context(condition, proprio)
        # The queries are the trunk's learned action positions alone.
        queries = context.new_zeros(context.shape[0], self.horizon, self.config.dim)
        return self.trunk(context, queries)

    def training_loss_terms(
        self,
        condition: Tensor,
        proprio: Tensor | None,
        actions: Tensor,
        action_mask: Tensor,
        *,
        seed: Coordinate,
        step: Coordinate,
        sample_ids: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(sum of errors over valid elements, their count). seed, step and sample_ids are part of
        the heads' common signature; nothing is drawn here."""
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
        *,
        seeds: Coordinate,
        steps: Coordinate,
        sample_ids: Tensor | None = None,
        action_mask: Tensor | None = None,
        solver_steps: int | None = None,
    ) -> Tensor:
        actions = self.predict(condition, proprio)
        return actions if action_mask is None else torch.where(action_mask, actions, 0.0)
