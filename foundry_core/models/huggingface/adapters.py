"""Low-rank adapters in peft's format, beside the model that they adapt."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save_file
from torch import Tensor, nn

from foundry_core.files import write_json
from foundry_core.models.config import LoRAConfig
from foundry_core.models.lora import LoRALinear, places

_PREFIX = "base_model.model."


class Adapter(NamedTuple):
    """down [r,in], up [out,r] of one linear."""

    down: Tensor
    up: Tensor


def take_off(model: nn.Module) -> dict[int, Adapter]:
    """Puts a linear in each adapter's place whose weight is the adapter's `up`, so that what
    renames and splits weights does so with these; returns the adapters by the address of that
    weight, which views of it share."""
    found: dict[int, Adapter] = {}
    for place, linear in list(places(model, LoRALinear)):
        up = linear.lora_up.detach()
        found[_address(up)] = Adapter(linear.lora_down.detach(), up)
        place.put(linear.linear_of(up))
    return found


def split(
    weights: Iterator[tuple[str, Tensor]], adapters: dict[int, Adapter]
) -> dict[str, Adapter]:
    """Name of a linear in transformers → its adapter, of a model that `take_off` has changed. The
    parts of a fused projection share a copy of `down`."""
    found = {}
    for name, weight in weights:
        adapter = adapters.get(_address(weight))
        if adapter is not None and name.endswith(".weight"):
            found[name.removesuffix(".weight")] = Adapter(adapter.down, weight.detach())
    return found


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def save_adapters(
    folder: Path, adapters: dict[str, Adapter], config: LoRAConfig, base: str | None
) -> None:
    """adapter_model.safetensors and adapter_config.json, as peft writes them. base: the checkpoint
    that they belong to, as `from_pretrained` takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (down, up) in sorted(adapters.items()):
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = down.clone()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = up.contiguous().clone()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": sorted(adapters),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
    write_json(folder / "adapter_config.json", settings)
