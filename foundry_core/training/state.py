"""What a run consists of besides its step: weights, moments, average. Named, saved, restored."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from foundry_core.errors import FoundryError
from foundry_core.training.distributed import fill, full
from foundry_core.training.ema import Ema


class RunState:
    """View of a run's tensors under stable names; sharded tensors go in and out whole."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None) -> None:
        self._model = model
        self._optimizer = optimizer
        self._ema = ema
        # AdamW creates its moments at the first update; here they exist from the start, so that
        # a checkpoint always holds the same names.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }

    def collect(self, *, keep: bool) -> dict[str, Tensor]:
        """Every tensor, whole, on the CPU. Collective when sharded: all ranks call it, those with
        keep=False get nothing and hold at most one whole tensor at a time."""
        whole: dict[str, Tensor] = {}
        for name, tensor in self._tensors():
            value = full(tensor)
            if keep:
                whole[name] = value.cpu()
        return whole

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """The inverse of collect; FoundryError when names or shapes differ."""
        targets = dict(self._tensors())
        shapes = {name: tuple(t.shape) for name, t in targets.items()}
        found = {name: tuple(t.shape) for name, t in saved.items()}
        if shapes != found:
            odd = sorted(n for n in {*shapes, *found} if shapes.get(n) != found.get(n))
            raise FoundryError(
                f"the checkpoint does not fit this model: {len(odd)} tensors differ, first {odd[0]}"
                f" (model {shapes.get(odd[0])}, checkpoint {found.get(odd[0])})",
                "the code changed since it was written: remove the attempt's work folder",
            )
        for name, target in targets.items():
            fill(target, saved[name])

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self._model.named_parameters():
            yield f"model/{name}", parameter.detach()
            for key, value in self._optimizer.state.get(parameter, {}).items():
                yield f"{key}/{name}", value
        for name, buffer in self._model.named_buffers():
            yield f"buffer/{name}", buffer
        if self._ema:
            for name, value in self._ema.shadow.items():
                yield f"ema/{name}", value
