"""What heads share that learn to undo noise, whatever their path from noise to actions.

Legend: B batch, r noise draws per observation, K horizon, A action dim, C condition tokens.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Unpack

import torch
from torch import Tensor, nn

from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.diffusion import DiffusionHeadConfig
from foundry_core.models.heads.flow import FlowHeadConfig
from foundry_core.models.heads.networks.base import ActionHead
from foundry_core.models.heads.networks.trunk import HeadTrunk
from foundry_core.models.noise import Key
from foundry_core.models.tables import constants

Predict = Callable[[Tensor, float], Tensor]
"""(noised chunk [B,K,A], time in [0, 1]) → the network's prediction [B,K,A]."""


class Pairs(NamedTuple):
    """What one training step regresses: noised [B,r,K,A], times [B,r], target [B,r,K,A]."""

    noised: Tensor
    times: Tensor
    target: Tensor


class NoisedHead(ActionHead):
    """A trunk that reads a noised chunk at some time, and the projection of that chunk."""

    def __init__(
        self, config: FlowHeadConfig | DiffusionHeadConfig, **sizes: Unpack[HeadSizes]
    ) -> None:
        super().__init__()
        self.draws = config.num_noise_samples
        self.trunk = HeadTrunk(config, time=config.time, **sizes)
        self.horizon, self.action_dim = sizes["horizon"], sizes["action_dim"]
        self.action_in = nn.Linear(self.action_dim, config.dim)
        nn.init.trunc_normal_(self.action_in.weight, std=self.action_dim**-0.5)
        nn.init.zeros_(self.action_in.bias)

    @abstractmethod
    def pairs(self, actions: Tensor, key: Key) -> Pairs:
        """actions [B,1,K,A], 0 where masked → r draws each, pure in the key."""

    @abstractmethod
    def times(self, solver_steps: int | None) -> list[float]:
        """All that `denoise` asks a prediction at."""

    @abstractmethod
    def denoise(self, predict: Predict, key: Key, solver_steps: int | None) -> Tensor:
        """Chunks [B,K,A] from fresh noise."""

    def predict(self, context: Tensor, noised: Tensor, times: Tensor) -> Tensor:
        """context [B,C+S,D] (see HeadTrunk.context), noised [B,r,K,A], times [B,r] in [0, 1]
        → float32 [B,r,K,A]."""
        batch, draws = times.shape
        context = context[:, None].expand(-1, draws, -1, -1).flatten(0, 1)
        tokens = self.action_in(noised.flatten(0, 1))
        time_bd = self.trunk.embed(times.flatten())
        return self.trunk(context, tokens, time_bd).unflatten(0, (batch, draws))

    def training_pairs(self, actions: Tensor, action_mask: Tensor, key: Key) -> Pairs:
        """actions, action_mask [B,K,A]. Masked elements are 0 in `noised`: padding never reaches
        the network."""
        mask = action_mask[:, None]
        known = torch.where(mask, actions[:, None].float(), 0.0)
        pairs = self.pairs(known, key)
        return pairs._replace(noised=torch.where(mask, pairs.noised, 0.0))

    def training_loss_terms(
        self,
        condition: Tensor,
        proprio: Tensor | None,
        actions: Tensor,
        action_mask: Tensor,
        key: Key,
    ) -> tuple[Tensor, Tensor]:
        """Squared errors of the prediction."""
        pairs = self.training_pairs(actions, action_mask, key)
        context = self.trunk.context(condition, proprio)
        error = self.predict(context, pairs.noised, pairs.times) - pairs.target
        squared = torch.where(action_mask[:, None], error.square(), 0.0)
        return squared.sum(), action_mask.sum(dtype=torch.float32) * self.draws

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
        context = self.trunk.context(condition, proprio)
        # One call for all steps: step by step it took a seventh of a chunk's time on a CPU.
        times = self.times(solver_steps)
        rows = self.trunk.embed(constants(times, context.device))
        embedded = {} if rows is None else dict(zip(times, rows[:, None], strict=True))

        def masked(x: Tensor) -> Tensor:
            return x if action_mask is None else torch.where(action_mask, x, 0.0)

        def predict(x: Tensor, time: float) -> Tensor:
            row = embedded.get(time)
            time_bd = None if row is None else row.expand(len(x), -1)
            return self.trunk(context, self.action_in(masked(x)), time_bd)

        return masked(self.denoise(predict, key, solver_steps))
