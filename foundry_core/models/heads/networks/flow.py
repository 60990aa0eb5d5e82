"""Flow-matching action head: a_t = (1−t)·z + t·a, target velocity a − z. Legend as in noised.py."""

from typing import Unpack

import torch
from torch import Tensor

from foundry_core.errors import FoundryError
from foundry_core.models import noise
from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.flow import FlowHeadConfig
from foundry_core.models.heads.networks.noised import NoisedHead, Pairs, Predict
from foundry_core.models.heads.networks.times import sample_times

_STREAM_TRAIN, _STREAM_SAMPLE = 1, 2


class FlowHead(NoisedHead):
    """Predicts the velocity that carries noise to actions; integrates it to act."""

    def __init__(self, config: FlowHeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__(config, **sizes)
        self.config = config

    def pairs(self, actions: Tensor, key: noise.Key) -> Pairs:
        shape = (self.draws, *actions.shape[2:])
        z = noise.normal(key, shape, stream=_STREAM_TRAIN)
        times = sample_times(self.config.times, key, self.draws)
        return Pairs(torch.lerp(z, actions, times[:, :, None, None]), times, actions - z)

    def denoise(self, predict: Predict, key: noise.Key, solver_steps: int | None) -> Tensor:
        shape = (self.horizon, self.action_dim)
        x = noise.normal(key, shape, stream=_STREAM_SAMPLE)
        return integrate(predict, x, solver_steps or self.config.steps, self.config.solver)


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
