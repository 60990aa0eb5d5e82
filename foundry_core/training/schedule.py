"""Learning-rate multipliers: pure functions of the step, so that a resumed run needs no state."""

import math

from foundry_core.training.config import ScheduleConfig


def lr_multiplier(config: ScheduleConfig, step: int, total: int) -> float:
    """Multiplier of the peak rate at 0-based `step` of `total`.

    Warm-up (step+1)/warmup, so that the first step already learns and step warmup−1 is at the
    peak; then the schedule's fall from 1 at `warmup` to min_ratio at `total`.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.kind == "constant":
        return 1.0
    start = config.warmup
    if config.kind == "wsd":
        start = max(start, total - round(config.decay_fraction * total))
    progress = min(1.0, max(0.0, (step - start) / max(1, total - start)))
    if config.kind == "wsd":
        return 1.0 - (1.0 - config.min_ratio) * progress
    return config.min_ratio + (1.0 - config.min_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))
