"""What heads share that learn to undo noise, whatever their path from noise to actions.

Legend: B batch, r noise draws per observation, K horizon, A action dim, C condition tokens.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, Unpack

import torch
from torch import Tensor, nn

from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.diffusion import DiffusionHeadConfig
from foundry_core.models.heads.flow import FlowConfig
from foundry_core.models.heads.networks.base import ActionHead, Observation, Request, Targets
from foundry_core.models.noise import Key
from foundry_core.models.tables import constants

Predict = Callable[[Tensor, float], Tensor]
"""(noised chunk [B,K,A], time in [0, 1]) → the network's prediction [B,K,A]."""


class Trunk(Protocol):
    """What reads noised chunks."""

    def observed(self, seen: Observation) -> Any:
        """What does not depend on actions and times: made once per observation."""
        ...

    def embed(self, times: Tensor) -> Tensor | None:
        """times [b] in [0, 1] → [b,D]; None for a trunk that knows no time."""
        ...

    def denoise(self, context: Any, tokens: Tensor, time_brd: Tensor | None) -> Tensor:
        """context: as `observed`; tokens [B,r,K,D] of noised chunks → float32 [B,r,K,A]."""
        ...


T = TypeVar("T", bound=Trunk)


class Pairs(NamedTuple):
    """What one training step regresses: noised [B,r,K,A], times [B,r], target [B,r,K,A]."""

    noised: Tensor
    times: Tensor
    target: Tensor


class NoisedHead(ActionHead, Generic[T]):
    """A trunk that reads a noised chunk at some time, and the projection of that chunk."""

    trunk: T

    def __init__(
        self, config: FlowConfig | DiffusionHeadConfig, trunk: T, **sizes: Unpack[HeadSizes]
    ) -> None:
        super().__init__()
        self.draws = config.num_noise_samples
        self.trunk = trunk
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

    def predict(self, context: Any, noised: Tensor, times: Tensor) -> Tensor:
        """context: the trunk's, noised [B,r,K,A], times [B,r] in [0, 1] → float32 [B,r,K,A]."""
        time_bd = self.trunk.embed(times.flatten())
        time_brd = None if time_bd is None else time_bd.unflatten(0, times.shape)
        return self.trunk.denoise(context, self.action_in(noised), time_brd)

    def training_pairs(self, targets: Targets, key: Key) -> Pairs:
        """Masked elements are 0 in `noised`: padding never reaches the network."""
        pairs = self.pairs(targets.known[:, None], key)
        return pairs._replace(noised=torch.where(targets.mask[:, None], pairs.noised, 0.0))

    def training_loss_terms(
        self, seen: Observation, targets: Targets, key: Key
    ) -> tuple[Tensor, Tensor]:
        """Squared errors of the prediction."""
        pairs = self.training_pairs(targets, key)
        context = self.trunk.observed(seen)
        error = self.predict(context, pairs.noised, pairs.times) - pairs.target
        return targets.total(error.square().sum(dim=1)), targets.count * self.draws

    def chunk(self, seen: Observation, request: Request) -> Tensor:
        context = self.trunk.observed(seen)
        # One call for all steps: step by step it took a seventh of a chunk's time on a CPU.
        times = self.times(request.solver_steps)
        rows = self.trunk.embed(constants(times, seen.prompts.tokens.device))
        embedded = {} if rows is None else dict(zip(times, rows[:, None], strict=True))

        def predict(x: Tensor, time: float) -> Tensor:
            row = embedded.get(time)
            time_brd = None if row is None else row.expand(len(x), 1, -1)
            tokens = self.action_in(request.masked(x))[:, None]
            return self.trunk.denoise(context, tokens, time_brd)[:, 0]

        return self.denoise(predict, request.key, request.solver_steps)
