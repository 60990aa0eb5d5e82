"""Transformers VLMs by their parts: shapes of a module on the meta device, which takes no memory.

What blocks keep is what transformers' own code keeps uncompiled: its RMSNorm its input in float32
and what it has normalised, its rotary positions copies of q and k. Its towers differ more; theirs
is that of Qwen's, which keeps most.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from foundry_core.data.loading.config import ROBOT
from foundry_core.data.robot.transform_config import PromptMarks
from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVLMConfig
from foundry_core.models.huggingface.checkpoint import pretrained_tokenizer
from foundry_core.models.huggingface.load import architecture_of
from foundry_core.models.huggingface.processor import with_processor
from foundry_core.models.huggingface.vlm import HFVLM
from foundry_core.models.presets import preset_of_origin
from foundry_core.training.sizing.parts import INDEX, DecoderPart, Part, Pass
from foundry_core.training.sizing.shapes import FP32, Bytes
from foundry_core.training.sizing.workload import ImageTokens, Rows


@dataclass(frozen=True, kw_only=True)
class HFLanguagePart(DecoderPart):
    """layer: elements of one. heads, kv_heads, head_dim, ffn: as in shapes.py."""

    elements: int
    layer: int
    layers: int
    layer_linears: Mapping[str, tuple[int, int]]
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    qk_norm: bool
    tied_head: bool

    @property
    def own(self) -> int:
        return self.elements

    @property
    def block(self) -> int:
        return self.layer

    @property
    def n_blocks(self) -> int:
        return self.layers

    @property
    def dim(self) -> int:
        return self.width

    @property
    def tied(self) -> bool:
        return self.tied_head

    @property
    def linears(self) -> Mapping[str, tuple[int, int]]:
        return self.layer_linears

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        positions, count = rows.positions, self.layers
        kept = positions * self._kept(size)
        products = sum(into * out for into, out in self.linears.values())
        linear = 2.0 * count * positions * products
        rest = float(positions * (INDEX * 3 + self.width * size.residual))
        if rows.modality != ROBOT:
            linear += 2.0 * rows.targets * self.table
            rest += positions * self._kept_by_norm(self.width, size.residual)
            rest += rows.targets * (size.product * self.width + INDEX)
        return Pass(
            linear=linear,
            scores=count * 4.0 * self.heads * self.head_dim * positions**2,
            blocks=count * kept,
            rest=rest,
            inputs=count * positions * size.residual * self.width,
            block=kept,
        )

    def _kept(self, size: Bytes) -> int:
        """By a layer, per position."""
        each = self._kept_by_norm(self.width, size.residual) + size.product * self.width
        rotated = self.heads + self.kv_heads
        values = rotated + self.kv_heads + self.heads
        found = 2 * each + size.product * (values * self.head_dim + 4 * self.ffn)
        if self.qk_norm:
            found += rotated * self._kept_by_norm(self.head_dim, size.product)
        return found + FP32 * self.heads

    @staticmethod
    def _kept_by_norm(width: int, stored: int) -> int:
        return (FP32 + stored) * width + FP32


@dataclass(frozen=True, kw_only=True)
class HFVisionPart(Part):
    """merged: (in, out) of the linears that work on merged tokens. pixels: numbers of a patch."""

    elements: int
    layer: int
    layers: int
    layer_linears: Mapping[str, tuple[int, int]]
    width: int
    heads: int
    ffn: int
    patches: int
    pixels: int
    merged: tuple[tuple[int, int], ...]
    tokens: int

    @property
    def own(self) -> int:
        return self.elements

    @property
    def block(self) -> int:
        return self.layer

    @property
    def n_blocks(self) -> int:
        return self.layers

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        images, patches, count = rows.images, self.patches, self.layers
        products = sum(into * out for into, out in self.layer_linears.values())
        first = 2.0 * patches * self.pixels * self.width
        merging = sum(2.0 * self.tokens * into * out for into, out in self.merged)
        kept = patches * self._kept(size)
        rest = patches * self.pixels * size.product
        # Of each merger: a norm's input, its output, and GELU's.
        rest += sum(self.tokens * 2 * size.product * into for into, _ in self.merged)
        return Pass(
            linear=images * (first + merging + 2.0 * count * patches * products),
            leaf=images * first,
            scores=images * count * 4.0 * self.width * patches**2,
            blocks=images * count * kept,
            rest=float(images * rest),
            inputs=images * count * patches * size.residual * self.width,
            block=images * kept,
        )

    def _kept(self, size: Bytes) -> int:
        """By a layer, per patch: norms, q, k and v, their rotated copies, outputs of each image and
        of all, GELU's input and output."""
        norms = 2 * (size.residual + size.product) * self.width + 4 * FP32
        attention = 7 * size.product * self.width + FP32 * self.heads
        return norms + attention + 2 * size.product * self.ffn


@dataclass(frozen=True, kw_only=True)
class HFProjectorPart(Part):
    """Between tower and decoder, where it is no part of the tower."""

    elements: int
    linears: tuple[tuple[int, int], ...]
    tokens: int

    @property
    def own(self) -> int:
        return self.elements

    @property
    def block(self) -> int:
        return 0

    @property
    def n_blocks(self) -> int:
        return 0

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        tokens = rows.images * self.tokens
        linear = sum(2.0 * tokens * into * out for into, out in self.linears)
        kept = size.product * tokens * sum(into for into, _ in self.linears)
        return Pass(linear=linear, rest=float(kept))


def vlm_parts(config: HFVLMConfig, place: str) -> list[Part]:
    """FoundryError where its architecture is not known here."""
    return module_parts(_shell(config), place)


def vlm_image_tokens(config: HFVLMConfig) -> ImageTokens:
    """Without a tokenizer at hand, what its template writes around images is taken for two tokens
    an image and sixteen a row."""
    shell = _shell(config)
    marks = shell.config.marks or PromptMarks(
        opening=(0,) * 16, image_before=(0,), image_after=(0,)
    )
    return ImageTokens(each=shell.tokens_per_image, marks=marks)


def module_parts(model: HFVLM, place: str = "") -> list[Part]:
    """Of a module, on whatever device."""
    text, vision = model.settings, getattr(model.model.config, "vision_config", None)
    heads = text.num_attention_heads
    layer = model.text_layers[0]
    named = model.parts
    prefix = f"{place}.model.model" if place else "model.model"
    language = HFLanguagePart(
        name="language",
        place=f"{prefix}.language_model",
        vocabulary=model.vocab_size,
        elements=_elements(named["language"]),
        layer=_elements([layer]),
        layers=model.n_layers,
        layer_linears=_linears(layer),
        width=model.dim,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or model.dim // heads,
        ffn=text.intermediate_size,
        qk_norm=any("q_norm" in name for name, _ in layer.named_modules()),
        tied_head=model.model.get_output_embeddings().weight
        is model.model.get_input_embeddings().weight,
    )
    blocks = _blocks(named["vision"])
    if not blocks:
        raise FoundryError(f"{model.model.config.model_type}: no blocks in its tower")
    inside = {id(one) for block in blocks for one in block.modules()}
    side = model.config.image_size or 0
    patch = vision.patch_size
    tower = HFVisionPart(
        name="vision",
        place=f"{prefix}.visual",
        elements=_elements(named["vision"]),
        layer=_elements(blocks[:1]),
        layers=len(blocks),
        layer_linears=_linears(blocks[0]),
        width=vision.hidden_size,
        heads=getattr(vision, "num_heads", None) or vision.num_attention_heads,
        ffn=vision.intermediate_size,
        patches=(side // patch) ** 2,
        pixels=3 * patch**2 * getattr(vision, "temporal_patch_size", 1),
        merged=tuple(_outside(named["vision"], inside)),
        tokens=model.tokens_per_image,
    )
    found: list[Part] = [tower]
    if _elements(named["projector"]):
        projector = HFProjectorPart(
            name="projector",
            place=prefix,
            elements=_elements(named["projector"]),
            linears=tuple(_outside(named["projector"], set())),
            tokens=model.tokens_per_image,
        )
        found.append(projector)
    return [*found, language]


def _shell(config: HFVLMConfig) -> HFVLM:
    with torch.device("meta"):
        return HFVLM(_described(config))


def _described(config: HFVLMConfig) -> HFVLMConfig:
    """With its architecture instead of the place of its weights."""
    if config.config is not None:
        return config
    if config.path is None:
        preset = preset_of_origin(config.source or "")
        if not isinstance(preset, HFVLMConfig):
            raise FoundryError(
                f"the architecture of {config.source!r} is not known here",
                "give the folder of its weights, or describe it as a preset in stage_configs/"
                f"models with `origin: {config.source}`",
            )
        given = config.model_dump(exclude_none=True, exclude={"source", "revision", "kind"})
        return preset.model_copy(update=given)
    folder = Path(config.path).expanduser()
    if not (folder / "config.json").is_file():
        raise FoundryError(
            f"{folder} holds no config.json", "name the folder of a transformers checkpoint"
        )
    settings = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    known = with_processor(config, folder, settings, pretrained_tokenizer(folder))
    return known.model_copy(update={"config": architecture_of(settings), "path": None})


def _elements(modules: Iterable[nn.Module]) -> int:
    own = {id(p): p for module in modules for p in module.parameters()}
    return sum(p.numel() for p in own.values())


def _linears(module: nn.Module) -> dict[str, tuple[int, int]]:
    return {
        name.rpartition(".")[2]: (one.in_features, one.out_features)
        for name, one in module.named_modules()
        if isinstance(one, nn.Linear)
    }


def _outside(modules: Iterable[nn.Module], inside: set[int]) -> Iterator[tuple[int, int]]:
    for module in modules:
        for one in module.modules():
            if isinstance(one, nn.Linear) and id(one) not in inside:
                yield one.in_features, one.out_features


def _blocks(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The longest list of modules in a tower."""
    lists: list[Any] = [
        one for module in modules for one in module.modules() if isinstance(one, nn.ModuleList)
    ]
    return list(max(lists, key=len, default=[]))
