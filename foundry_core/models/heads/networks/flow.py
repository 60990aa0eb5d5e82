"""Flow-matching action head: a_t = (1−t)·z + t·a, target velocity a − z.

Legend: B batch, r noise draws per observation, K horizon, A action dim, C condition tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from foundry_core.errors import FoundryError
from foundry_core.models import noise
from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.flow import FlowHeadConfig
from foundry_core.models.heads.networks.times import sample_times
from foundry_core.models.heads.networks.trunk import NoisedHead

_STREAM_TRAIN, _STREAM_SAMPLE = 1, 2


@dataclass(frozen=True, kw_only=True)
class FlowPairs:
    """What one training step regresses: noised [B,r,K,A], times [B,r], target [B,r,K,A]."""

    noised: Tensor
    times: Tensor
    target: Tensor


class FlowHead(NoisedHead):
    """Predicts the velocity that carries noise to actions; integrates it to act."""

    def __init__(self, config: FlowHeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__(config, time=config.time, **sizes)
        self.config = config

    def training_pairs(
        self,
        actions: Tensor,
        action_mask: Tensor,
        *,
        seed: noise.Coordinate,
        step: noise.Coordinate,
        sample_ids: Tensor,
    ) -> FlowPairs:
        """actions, action_mask [B,K,A] → r draws each. Masked elements are 0 in `noised`: padding
        never reaches the network. Pure in (seed, step, sample_ids), whatever the batch."""
        draws = self.config.num_noise_samples
        z = noise.normal(seed, step, sample_ids, (draws, *actions.shape[1:]), stream=_STREAM_TRAIN)
        times = sample_times(self.config.times, seed, step, sample_ids, draws)
        mask = action_mask[:, None]
        a = torch.where(mask, actions[:, None].float(), 0.0)
        noised = torch.where(mask, torch.lerp(z, a, times[:, :, None, None]), 0.0)
        return FlowPairs(noised=noised, times=times, target=a - z)

    def training_loss_terms(
        self,
        condition: Tensor,
        proprio: Tensor | None,
        actions: Tensor,
        action_mask: Tensor,
        *,
        seed: noise.Coordinate,
        step: noise.Coordinate,
        sample_ids: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Squared errors of the velocity."""
        pairs = self.training_pairs(
            actions, action_mask, seed=seed, step=step, sample_ids=sample_ids
        )
        context = self.trunk.context(condition, proprio)
        error = self.predict(context, pairs.noised, pairs.times) - pairs.target
        squared = torch.where(action_mask[:, None], error.square(), 0.0)
        count = action_mask.sum(dtype=torch.float32) * self.config.num_noise_samples
        return squared.sum(), count

    @torch.no_grad()
    def sample(
        self,
        condition: Tensor,
        proprio: Tensor | None,
        *,
        seeds: noise.Coordinate,
        steps: noise.Coordinate,
        sample_ids: Tensor | None = None,
        action_mask: Tensor | None = None,
        solver_steps: int | None = None,
    ) -> Tensor:
        batch, device = condition.shape[0], condition.device
        if sample_ids is None:
            sample_ids = torch.zeros(batch, dtype=torch.int64, device=device)
        context = self.trunk.context(condition, proprio)
        shape = (1, self.horizon, self.action_dim)
        x = noise.normal(seeds, steps, sample_ids, shape, stream=_STREAM_SAMPLE)

        def velocity(x: Tensor, t: float) -> Tensor:
            if action_mask is not None:
                x = torch.where(action_mask[:, None], x, 0.0)
            return self.predict(context, x, torch.full((batch, 1), t, device=device))

        x = integrate(velocity, x, solver_steps or self.config.steps, self.config.solver)[:, 0]
        return x if action_mask is None else torch.where(action_mask, x, 0.0)


def integrate(
    velocity: Callable[[Tensor, float], Tensor], x: Tensor, steps: int, solver: str = "euler"
) -> Tensor:
    """Integrates dx/dt = velocity(x, t) from t = 0 to 1 on the grid t_i = i/steps, exactly `steps`
    steps for every `steps` (a running `t += 1/steps` takes one too many for some)."""
    if steps < 1:
        raise FoundryError(f"the flow solver takes at least 1 step, got {steps}")
    for i in range(steps):
        v = velocity(x, i / steps)
        if solver == "heun":
            v = (v + velocity(x + v / steps, (i + 1) / steps)) / 2
        x = x + v / steps
    return x
