"""Distributions of the flow time t in [0, 1)."""

import functools

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from foundry_core.models import noise
from foundry_core.models.heads.flow import BetaTimes, LogitNormalTimes, TimesConfig

_STREAM_TIME = 3
_BELOW_ONE = 1.0 - 2.0**-24
_TABLE = 4096


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
