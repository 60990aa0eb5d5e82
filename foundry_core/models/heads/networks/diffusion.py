"""Denoising-diffusion action head: the baseline of diffusion policies.

Levels t = 0 … n−1 with ā_t = Π(1 − β_s), β on a squared cosine (Nichol and Dhariwal 2021):
x_t = √ā_t·a + √(1−ā_t)·ε, the network predicts ε. Legend as in noised.py.
"""

import math
from typing import Unpack

import torch
from torch import Tensor

from foundry_core.models import noise
from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.diffusion import DiffusionHeadConfig
from foundry_core.models.heads.networks.noised import NoisedHead, Pairs, Predict
from foundry_core.models.heads.networks.trunk import HeadTrunk
from foundry_core.models.tables import constants

_STREAM_TRAIN, _STREAM_LEVEL, _STREAM_SAMPLE = 4, 5, 6


def signal_levels(count: int) -> Tensor:
    """ā_t, float64 [count], falling."""

    def cosine(t: float) -> float:
        return math.cos((t / count + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - cosine(t + 1) / cosine(t), 0.999) for t in range(count)]
    # On the host also where a model is built without memory of its own.
    values = torch.tensor(betas, dtype=torch.float64, device="cpu")
    return torch.cumprod(1 - values, dim=0)


class DiffusionHead(NoisedHead[HeadTrunk]):
    """Predicts the noise in a noised chunk; removes it step by step to act."""

    def __init__(self, config: DiffusionHeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__(config, HeadTrunk(config, time=config.time, **sizes), **sizes)
        self.config = config
        self.levels = signal_levels(config.train_steps).tolist()

    def pairs(self, actions: Tensor, key: noise.Key) -> Pairs:
        count, shape = self.config.train_steps, (self.draws, *actions.shape[2:])
        epsilon = noise.normal(key, shape, stream=_STREAM_TRAIN)
        u = noise.uniform(key, (self.draws,), stream=_STREAM_LEVEL)
        level = (u * count).long().clamp_(max=count - 1)
        signal = constants(self.levels, epsilon.device)[level][:, :, None, None]
        noised = signal.sqrt() * actions + (1 - signal).sqrt() * epsilon
        return Pairs(noised, level / count, epsilon)

    def times(self, solver_steps: int | None) -> list[float]:
        chosen = _chosen(len(self.levels), self._count(solver_steps))
        return [level / len(self.levels) for level in chosen]

    def _count(self, solver_steps: int | None) -> int:
        return min(solver_steps or self.config.steps, self.config.train_steps)

    def denoise(self, predict: Predict, key: noise.Key, solver_steps: int | None) -> Tensor:
        count = self._count(solver_steps)
        shape = (count if self.config.sampler == "ddpm" else 1, self.horizon, self.action_dim)
        draws = noise.normal(key, shape, stream=_STREAM_SAMPLE)
        return denoise(predict, draws, self.levels, count, self.config.clip)


def _chosen(levels: int, count: int) -> list[int]:
    """`count` evenly spaced of so many levels, the noisiest first."""
    return [round((i + 1) * levels / count) - 1 for i in reversed(range(count))]


def denoise(
    predict: Predict, draws: Tensor, levels: list[float], count: int, clip: float
) -> Tensor:
    """From pure noise draws[:, 0] to actions in `count` steps over evenly spaced levels, the
    noisiest first.

    draws [B,1,K,A] makes it DDIM with η = 0; draws [B,count,K,A] DDPM (η = 1), which adds
    draws[:, i] before step i.
    """
    chosen = _chosen(len(levels), count)
    x = draws[:, 0]
    for i, level in enumerate(chosen):
        signal = levels[level]
        target = levels[chosen[i + 1]] if i + 1 < count else 1.0
        epsilon = predict(x, level / len(levels))
        clean = ((x - math.sqrt(1 - signal) * epsilon) / math.sqrt(signal)).clamp(-clip, clip)
        epsilon = (x - math.sqrt(signal) * clean) / math.sqrt(1 - signal)
        variance = 0.0
        if draws.shape[1] > 1:
            variance = (1 - target) / (1 - signal) * (1 - signal / target)
        x = math.sqrt(target) * clean + math.sqrt(max(0.0, 1 - target - variance)) * epsilon
        if variance:
            x = x + math.sqrt(variance) * draws[:, i + 1]
    return x
