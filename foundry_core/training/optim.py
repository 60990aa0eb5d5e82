"""AdamW with decay on matrices only, per-group rates and their schedule, freezing, clipping."""

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from foundry_core.errors import FoundryError
from foundry_core.training.config import OptimizerConfig, ScheduleConfig
from foundry_core.training.trunk import decay_start

_NEVER_DECAYED = ("position", "pos_emb")


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: matrices, not norms, biases, gates or position tables.

    A matrix has two dimensions larger than one, which leaves out class tokens of shape [1, 1, D].
    """
    matrix = sum(size > 1 for size in parameter.shape) >= 2
    return matrix and not any(word in name for word in _NEVER_DECAYED)


def freeze(module: nn.Module, patterns: tuple[str, ...]) -> None:
    """Stops training of the parameters whose dotted name, or a parent of it, matches a pattern."""
    for pattern in patterns:
        hits = [p for n, p in module.named_parameters() if _matches(n, pattern)]
        if not hits:
            _no_such_parameter(module, "freeze", pattern)
        for parameter in hits:
            parameter.requires_grad_(False)


def build_optimizer(
    module: nn.Module, config: OptimizerConfig, lr_scale: Mapping[str, float] | None = None
) -> torch.optim.AdamW:
    """Groups of (decay, rate scale) over the trainable parameters, in the module's order.

    lr_scale: name pattern → factor on the rate; the longest matching pattern counts.
    Every group carries `peak_lr`, which `set_lr` multiplies.
    """
    lr_scale = dict(lr_scale or {})
    used: set[str] = set()
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        matching = [p for p in lr_scale if _matches(name, p)]
        pattern = max(matching, key=lambda p: (len(p), p), default=None)
        used.update(matching)
        scale = lr_scale[pattern] if pattern else 1.0
        groups.setdefault((decays(name, parameter), scale), []).append(parameter)
    for pattern in lr_scale:
        if pattern not in used:
            _no_such_parameter(module, "lr_scale", pattern)
    if not groups:
        raise FoundryError("every parameter is frozen: nothing to train", "shorten `frozen`")
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak_lr": config.lr * scale,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (decayed, scale), parameters in sorted(groups.items(), key=lambda item: item[0])
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def lr_multiplier(config: ScheduleConfig, step: int, total: int) -> float:
    """Multiplier of the peak rate at 0-based `step` of `total`.

    Pure, so that a resumed run needs no state. Warm-up (step+1)/warmup, so that the first step
    already learns and step warmup−1 is at the peak; then the fall to min_ratio at `total`, or at
    the schedule's own `length`. What it says of steps that budgets share, `trunk.py` knows.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.kind == "constant":
        return 1.0
    total = config.length or total
    start = decay_start(config, total) if config.kind == "wsd" else config.warmup
    progress = min(1.0, max(0.0, (step - start) / max(1, total - start)))
    if config.kind == "wsd":
        return 1.0 - (1.0 - config.min_ratio) * progress
    return config.min_ratio + (1.0 - config.min_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))


def set_lr(optimizer: torch.optim.Optimizer, multiplier: float) -> None:
    """Every group's rate becomes its peak rate times the multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * multiplier


def update(
    optimizer: torch.optim.Optimizer, loss: Tensor, norm: Tensor, bound: float | None
) -> None:
    """One step with the gradients scaled down to a global norm of `bound`; none where the loss or
    the norm is not finite: weights, moments and step count stay.

    The optimiser's own kernel does both as it reads the gradients: no host has to look, and they
    make no extra way through memory.
    """
    finite = torch.isfinite(loss) & torch.isfinite(norm)
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    if bound is not None:
        optimizer.grad_scale = (norm / bound).clamp(min=1.0).float()  # type: ignore[attr-defined]
    optimizer.step()


def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """The global norm, a float32 scalar. Sharded gradients (DTensor) are reduced over their mesh
    first: a collective."""
    gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _no_such_parameter(module: nn.Module, key: str, pattern: str) -> None:
    known = sorted({name.split(".")[0] for name, _ in module.named_parameters()})
    raise FoundryError(
        f"{key} pattern {pattern!r} matches no parameter",
        f"top-level parts are {', '.join(known)}; '*' matches any run of characters",
    )
