"""Products of the blocks' large linears in 8-bit floats, by torchao (extra `fp8`).

Weights, moments, gradients and all else stay what `training.precision` makes them: the two operands
of a product are rounded to 8 bits, each time, by scales of their own. Names of parameters stay, so
checkpoints and the model that is left know nothing of it.
"""

import importlib.util
import logging
from dataclasses import replace

import torch
from torch import nn

from foundry_core.errors import FoundryError
from foundry_core.models.products import Linear
from foundry_core.training.config import Fp8Config
from foundry_core.training.parts import transformer_blocks

_log = logging.getLogger(__name__)
_ALIGNED = 16
"""What the kernels ask both sides of a weight to be a multiple of."""
_ADA, _HOPPER = (8, 9), (9, 0)
_WITHOUT = (
    "leave training.fp8 out: bf16 computes the same to its rounding; or set training.fp8.emulated "
    "to try the recipe without the speed"
)


def check_fp8(config: Fp8Config | None, device: torch.device) -> None:
    """FoundryError where this process cannot compute so: torchao is absent, or the device has no
    products of 8-bit floats."""
    if config is None:
        return
    if importlib.util.find_spec("torchao") is None:
        raise FoundryError(
            "training.fp8 is computed by torchao, which is not installed here",
            "pip install 'foundry-robotics[fp8]', on every machine that trains; or leave "
            "training.fp8 out",
        )
    if config.emulated:
        return
    if device.type != "cuda":
        raise FoundryError(
            f"training.fp8 needs a GPU with products of 8-bit floats, this process trains on "
            f"{device.type}",
            _WITHOUT,
        )
    needed, named = (_HOPPER, "Hopper") if config.scaling == "row" else (_ADA, "Ada")
    found = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and found < needed:
        raise FoundryError(
            f"training.fp8 with {config.scaling} scaling needs compute capability "
            f"{needed[0]}.{needed[1]} ({named} or later); "
            f"{torch.cuda.get_device_name(device)} has {found[0]}.{found[1]}",
            _WITHOUT,
        )


def compute_in_fp8(model: nn.Module, config: Fp8Config, device: torch.device) -> int:
    """Replaces linears in place, before blocks are compiled or sharded; returns how many.
    FoundryError as `check_fp8`'s, and where none is large enough."""
    check_fp8(config, device)
    from torchao.float8 import (
        Float8LinearConfig,
        Float8LinearRecipeName,
        convert_to_float8_training,
    )
    from torchao.float8.float8_linear import Float8Linear

    chosen = {id(one) for one in _linears(model) if _fits(one, config)}
    if not chosen:
        raise FoundryError(
            f"training.fp8 finds no linear to compute: none that is trained in full has sides of "
            f"{config.least} or more, both multiples of {_ALIGNED}",
            "lower training.fp8.least, or leave training.fp8 out: small products gain nothing",
        )
    names = {
        "tensor": Float8LinearRecipeName.TENSORWISE,
        "row": Float8LinearRecipeName.ROWWISE,
    }
    recipe = Float8LinearConfig.from_recipe_name(names[config.scaling])
    # Positions of a batch need not be a multiple of 16, which the weight's gradient asks for.
    recipe = replace(recipe, emulate=config.emulated, pad_inner_dim=True)
    convert_to_float8_training(
        model,
        module_filter_fn=lambda module, name: id(module) in chosen,
        config=recipe,
    )
    count = sum(isinstance(one, Float8Linear) for one in model.modules())
    _log.info("products of %d linears are of 8-bit floats", count)
    return count


def _linears(model: nn.Module) -> list[nn.Linear]:
    """Plain ones in blocks: no output layer, no adapted ones."""
    modules = [one for block in transformer_blocks(model) for one in block.modules()]
    linears = [one for one in modules if isinstance(one, nn.Linear)]
    return [one for one in linears if type(one) in (Linear, nn.Linear)]


def _fits(linear: nn.Linear, config: Fp8Config) -> bool:
    sides = (linear.in_features, linear.out_features)
    large = min(sides) >= config.least and not any(side % _ALIGNED for side in sides)
    return large and linear.weight.requires_grad
