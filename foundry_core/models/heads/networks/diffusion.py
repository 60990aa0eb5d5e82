"""Denoising-diffusion action head: the baseline of diffusion policies.

Levels t = 0 … n−1 with ā_t = Π(1 − β_s), β on a squared cosine (Nichol and Dhariwal 2021):
x_t = √ā_t·a + √(1−ā_t)·ε, the network predicts ε. Legend as in flow.py.
"""

import math
from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor

from foundry_core.models import noise
from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.diffusion import DiffusionHeadConfig
from foundry_core.models.heads.networks.trunk import NoisedHead

_STREAM_TRAIN, _STREAM_LEVEL, _STREAM_SAMPLE = 4, 5, 6


def signal_levels(count: int) -> Tensor:
    """ā_t, float64 [count], falling."""

    def cosine(t: float) -> float:
        return math.cos((t / count + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - cosine(t + 1) / cosine(t), 0.999) for t in range(count)]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), dim=0)


class DiffusionHead(NoisedHead):
    """Predicts the noise in a noised chunk; removes it step by step to act."""

    def __init__(self, config: DiffusionHeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__(config, time=config.time, **sizes)
        self.config = config
        self.levels = signal_levels(config.train_steps).tolist()

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
        """Squared errors of the noise."""
        draws, count = self.config.num_noise_samples, self.config.train_steps
        shape = (draws, *actions.shape[1:])
        epsilon = noise.normal(seed, step, sample_ids, shape, stream=_STREAM_TRAIN)
        u = noise.uniform(seed, step, sample_ids, (draws,), stream=_STREAM_LEVEL)
        level = (u * count).long().clamp_(max=count - 1)
        signal = epsilon.new_tensor(self.levels)[level][:, :, None, None]
        mask = action_mask[:, None]
        a = torch.where(mask, actions[:, None].float(), 0.0)
        noised = torch.where(mask, signal.sqrt() * a + (1 - signal).sqrt() * epsilon, 0.0)
        context = self.trunk.context(condition, proprio)
        error = self.predict(context, noised, level / count) - epsilon
        squared = torch.where(mask, error.square(), 0.0)
        return squared.sum(), action_mask.sum(dtype=torch.float32) * draws

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
        count = min(solver_steps or self.config.steps, self.config.train_steps)
        shape = (count if self.config.sampler == "ddpm" else 1, self.horizon, self.action_dim)
        draws = noise.normal(seeds, steps, sample_ids, shape, stream=_STREAM_SAMPLE)

        def predict(x: Tensor, level: int) -> Tensor:
            if action_mask is not None:
                x = torch.where(action_mask, x, 0.0)
            times = torch.full((batch, 1), level, device=device) / self.config.train_steps
            return self.predict(context, x[:, None], times)[:, 0]

        x = denoise(predict, draws, self.levels, count, self.config.clip)
        return x if action_mask is None else torch.where(action_mask, x, 0.0)


def denoise(
    predict: Callable[[Tensor, int], Tensor],
    draws: Tensor,
    levels: list[float],
    count: int,
    clip: float,
) -> Tensor:
    """From pure noise draws[:, 0] to actions in `count` steps over evenly spaced levels, the
    noisiest first.

    draws [B,1,K,A] makes it DDIM with η = 0; draws [B,count,K,A] DDPM (η = 1), which adds
    draws[:, i] before step i.
    """
    chosen = [round((i + 1) * len(levels) / count) - 1 for i in reversed(range(count))]
    x = draws[:, 0]
    for i, level in enumerate(chosen):
        signal = levels[level]
        target = levels[chosen[i + 1]] if i + 1 < count else 1.0
        epsilon = predict(x, level)
        clean = ((x - math.sqrt(1 - signal) * epsilon) / math.sqrt(signal)).clamp(-clip, clip)
        epsilon = (x - math.sqrt(signal) * clean) / math.sqrt(1 - signal)
        variance = 0.0
        if draws.shape[1] > 1:
            variance = (1 - target) / (1 - signal) * (1 - signal / target)
        x = math.sqrt(target) * clean + math.sqrt(max(0.0, 1 - target - variance)) * epsilon
        if variance:
            x = x + math.sqrt(variance) * draws[:, i + 1]
    return x
