"""What a run consists of besides its step: weights, moments, average. Named, saved, restored."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from foundry_core.errors import FoundryError
from foundry_core.training.checkpoint import Checkpoint
from foundry_core.training.config import FixedEma, PowerEma
from foundry_core.training.layout import read_parts


def ema_decay(config: FixedEma | PowerEma, n: int) -> float:
    """Decay of the n-th update (1-based; 0 is the state before any)."""
    if config.kind == "fixed":
        return config.decay if n > 0 else 0.0
    s = max(0, n - config.update_after - 1)
    if s == 0:
        return 0.0
    decay = 1.0 - (1.0 + s / config.inv_gamma) ** -config.power
    return min(max(decay, config.min_decay), config.max_decay)


class Ema:
    """Moving average of the trainable parameters, in float32 whatever the compute dtype, sharded
    like the weights it follows; frozen ones are equal to their average."""

    def __init__(self, module: nn.Module, config: FixedEma | PowerEma) -> None:
        self.config = config
        self._live = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.shadow = {n: p.detach().float().clone() for n, p in self._live.items()}

    @torch.no_grad()
    def update(self, n: int) -> None:
        """shadow ← decay·shadow + (1 − decay)·weights, one fused call over all tensors."""
        if not self.shadow:
            return
        weight = 1.0 - ema_decay(self.config, n)
        torch._foreach_lerp_(list(self.shadow.values()), list(self._live.values()), weight)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Replaces the live weights by their average: the end of a run."""
        for name, parameter in self._live.items():
            parameter.copy_(self.shadow[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the average stands in the module, the live weights here. Both are
        float32: what is exchanged twice has its bits back."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self._live.items():
            live = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(live)


class BestWeights:
    """A copy of the trainable parameters as they were at the best validation, sharded like them."""

    def __init__(self, module: nn.Module) -> None:
        self._live = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.held = {n: p.detach().clone() for n, p in self._live.items()}

    @torch.no_grad()
    def take(self) -> None:
        """Those that stand in the module now."""
        for name, parameter in self._live.items():
            self.held[name].copy_(parameter)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        for name, parameter in self._live.items():
            parameter.copy_(self.held[name])


class RunState:
    """View of a run's tensors under stable names."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None,
        best: BestWeights | None = None,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        held: Mapping[str, Mapping[str, Tensor]] = {
            "ema": ema.shadow if ema else {},
            "best": best.held if best else {},
        }
        self._held = held
        # AdamW creates its moments at the first update; here they exist from the start, so that
        # a checkpoint always holds the same names.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor under its name; sharded ones stay so, nothing is copied."""
        return dict(self._tensors())

    def misfit(self, saved: Checkpoint) -> str:
        """'' when the checkpoint has this model's names and shapes, else how it differs."""
        shapes = {name: tuple(t.shape) for name, t in self.tensors().items()}
        found = {name: stored.shape for name, stored in saved.layout.items()}
        odd = sorted(n for n in {*shapes, *found} if shapes.get(n) != found.get(n))
        if not odd:
            return ""
        here, there = shapes.get(odd[0]), found.get(odd[0])
        return f"{len(odd)} tensors differ, first {odd[0]} (model {here}, checkpoint {there})"

    def restore(self, saved: Checkpoint) -> None:
        """Fills this rank's part of every tensor; FoundryError when names or shapes differ."""
        misfit = self.misfit(saved)
        if misfit:
            raise FoundryError(
                f"the checkpoint does not fit this model: {misfit}",
                "the code changed since it was written: remove the attempt's work folder",
            )
        read_parts(self.tensors(), saved.layout, saved.files)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self._model.named_parameters():
            yield f"model/{name}", parameter.detach()
            for key, value in self._optimizer.state.get(parameter, {}).items():
                yield f"{key}/{name}", value
        for name, buffer in self._model.named_buffers():
            yield f"buffer/{name}", buffer
        for kind, tensors in self._held.items():
            for name, value in tensors.items():
                yield f"{kind}/{name}", value
