"""What torch counts on modules without values, where no formula of ours says it."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foundry_core.models.build import build_model
from foundry_core.models.config import HFVLMConfig, LoRAConfig, VLMConfig
from foundry_core.models.interfaces import Decoder
from foundry_core.models.lora import LoRALinear, apply_lora
from foundry_core.pipeline.stage import Config
from foundry_core.training.parts import parameters_of


def kept_on_meta(module: nn.Module, inputs: Tensor) -> tuple[float, float, float]:
    """(FLOPs of a forward pass, those of its first product, bytes that it keeps) of a module on the
    meta device. The first one works on data."""
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, int] = {}
    held = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            held.append(tensor)  # else its number would be another's next
        return tensor

    first: list[float] = []

    def count_first(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        if not first and isinstance(out, Tensor):
            first.append(2.0 * out.numel() * given[0].shape[1] * _kernel(layer))

    hooks = [
        one.register_forward_hook(count_first)
        for one in module.modules()
        if isinstance(one, nn.Conv2d)
    ]
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        FlopCounterMode(display=False) as counter,
    ):
        module(inputs)
    for hook in hooks:
        hook.remove()
    return float(counter.get_total_flops()), sum(first), float(sum(kept.values()))


def _kernel(module: nn.Module) -> int:
    assert isinstance(module, nn.Conv2d)
    return module.kernel_size[0] * module.kernel_size[1] // module.groups


def adapters_of(config: Config, lora: LoRAConfig) -> dict[str, tuple[int, int]]:
    """Part of a model → (elements of its adapters, of what is trained in full beside them). Of a
    model without values, whatever the patterns."""
    with torch.device("meta"):
        if isinstance(config, HFVLMConfig):
            from foundry_core.training.sizing.huggingface import shell

            model: nn.Module = shell(config)
        else:
            model = build_model(_numbered(config))
        assert isinstance(model, Decoder)
        apply_lora(model, lora)
    adapters = {
        id(weight)
        for module in model.modules()
        if isinstance(module, LoRALinear)
        for weight in (module.lora_down, module.lora_up)
    }
    found = {}
    for name, modules in model.parts.items():
        weights = list(parameters_of(modules))
        fresh = sum(p.numel() for p in weights if id(p) in adapters)
        learns = sum(p.numel() for p in weights if p.requires_grad)
        found[name] = (fresh, learns - fresh)
    return found


def _numbered(config: Config) -> Config:
    """With some number for the image token, which a plan does not know."""
    if isinstance(config, VLMConfig) and config.image_token_id is None:
        return config.model_copy(update={"image_token_id": 0})
    return config
