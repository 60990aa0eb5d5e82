"""Flow-matching action head: a_t = (1−t)·z + t·a, target velocity a − z. Legend as in noised.py."""

import functools
from typing import Unpack

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from foundry_core.errors import FoundryError
from foundry_core.models import noise
from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.flow import (
    BetaTimes,
    FlowConfig,
    FlowHeadConfig,
    LogitNormalTimes,
    TimesConfig,
)
from foundry_core.models.heads.networks.noised import NoisedHead, Pairs, Predict, T
from foundry_core.models.heads.networks.trunk import HeadTrunk

_STREAM_TRAIN, _STREAM_SAMPLE, _STREAM_TIME = 1, 2, 3
_BELOW_ONE = 1.0 - 2.0**-24
_TABLE = 4096


class FlowMatching(NoisedHead[T]):
    """Predicts the velocity that carries noise to actions; integrates it to act."""

    config: FlowConfig

    def pairs(self, actions: Tensor, key: noise.Key) -> Pairs:
        shape = (self.draws, *actions.shape[2:])
        z = noise.normal(key, shape, stream=_STREAM_TRAIN)
        times = sample_times(self.config.times, key, self.draws)
        return Pairs(torch.lerp(z, actions, times[:, :, None, None]), times, actions - z)

    def times(self, solver_steps: int | None) -> list[float]:
        steps = solver_steps or self.config.steps
        ends = self.config.solver == "heun"  # which looks at the end of each step, too
        return [i / steps for i in range(steps + ends)]

    def denoise(self, predict: Predict, key: noise.Key, solver_steps: int | None) -> Tensor:
        shape = (self.horizon, self.action_dim)
        x = noise.normal(key, shape, stream=_STREAM_SAMPLE)
        return integrate(predict, x, solver_steps or self.config.steps, self.config.solver)


class FlowHead(FlowMatching[HeadTrunk]):
    """On the transformer that heads share."""

    def __init__(self, config: FlowHeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__(config, HeadTrunk(config, time=config.time, **sizes), **sizes)
        self.config = config


def integrate(velocity: Predict, x: Tensor, steps: int, solver: str = "euler") -> Tensor:
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


def sample_times(config: TimesConfig, key: noise.Key, draws: int) -> Tensor:
    """float32 [B, draws] in [0, 1), pure in the key."""
    if isinstance(config, LogitNormalTimes):
        n = noise.normal(key, (draws,), stream=_STREAM_TIME)
        return torch.sigmoid(config.mean + config.std * n).clamp_(max=_BELOW_ONE)
    u = noise.uniform(key, (draws,), stream=_STREAM_TIME)
    if isinstance(config, BetaTimes):
        return _beta_quantile(u, config.alpha, config.beta).clamp_(max=_BELOW_ONE)
    return u


def _beta_quantile(u: Tensor, alpha: float, beta: float) -> Tensor:
    """Inverse distribution function: closed where one parameter is 1, else a table with linear
    interpolation (a rejection sampler would draw a data-dependent number of numbers)."""
    if alpha == 1.0:
        return 1 - (1 - u) ** (1 / beta)
    if beta == 1.0:
        return u ** (1 / alpha)
    table = _beta_table(alpha, beta, str(u.device))
    position = u * _TABLE
    index = position.long().clamp_(max=_TABLE - 1)
    return torch.lerp(table[index], table[index + 1], position - index)


@functools.lru_cache(maxsize=8)
def _beta_table(alpha: float, beta: float, device: str) -> Tensor:
    quantiles = betaincinv(alpha, beta, np.linspace(0.0, 1.0, _TABLE + 1))
    return torch.tensor(quantiles, dtype=torch.float32, device=device)
