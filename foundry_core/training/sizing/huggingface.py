"""Transformers VLMs by their parts: shapes of a module on the meta device, which takes no memory.

What blocks keep is what transformers' own code keeps uncompiled: its RMSNorm its input in float32
and what it has normalised, its rotary positions copies of q and k; Gemma's, whose prompts see each
other both ways, more. Its towers differ more; theirs is that of Qwen's, which keeps most.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from foundry_core.training.parts import parameters_of
from foundry_core.training.sizing.parts import INDEX, DecoderPart, Part, Pass, ProjectorPart
from foundry_core.training.sizing.shapes import FP32, Bytes
from foundry_core.training.sizing.workload import ImageTokens, Rows


@dataclass(frozen=True, kw_only=True)
class HFLanguagePart(DecoderPart):
    """heads, kv_heads, head_dim, ffn: as in shapes.py. norms: of a layer, over its width. gemma:
    its attention has a mask, its norms compute in float32 to the end."""

    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    qk_norm: bool
    norms: int = 2
    gemma: bool = False

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        if rows.modality != ROBOT:
            return self._pass(rows, size, rows.targets * self.table)
        reading = self.reading
        look = Pass()
        if reading.looks:
            each = {name: 2.0 * rows.positions * a * b for name, (a, b) in self.linears.items()}
            keys = sum(each[name] for name in ("k_proj", "v_proj") if name in each)
            scores = 4.0 * self.heads * self.head_dim * rows.positions**2
            one = self._pass(rows, size, None)
            look = reading.of_layers(one, sum(each.values()), keys, scores)
        if not reading.spoken:
            return look
        longer = replace(rows, positions=rows.positions + reading.spoken, targets=reading.spoken)
        return look + self._pass(longer, size, reading.spoken * reading.vocabulary * self.dim)

    def _pass(self, rows: Rows, size: Bytes, output: float | None) -> Pass:
        """output: multiplications of its output layer; None where nothing is said."""
        positions, count = rows.positions, self.n_blocks
        each = self._kept_by_gemma(size, positions) if self.gemma else self._kept(size)
        kept = positions * each
        products = sum(into * out for into, out in self.linears.values())
        linear = 2.0 * count * positions * products
        rest = float(positions * (INDEX * 3 + self.dim * size.residual))
        if output is not None:
            linear += 2.0 * output
            rest += positions * _kept_by_norm(self.dim, size.residual)
            rest += rows.targets * (size.product * self.dim + INDEX)
        return Pass(
            linear=linear,
            scores=count * 4.0 * self.heads * self.head_dim * positions**2,
            blocks=count * kept,
            rest=rest,
            inputs=count * positions * size.residual * self.dim,
            block=kept,
        )

    def _kept(self, size: Bytes) -> int:
        """By a layer, per position."""
        each = _kept_by_norm(self.dim, size.residual) + size.product * self.dim
        rotated = self.heads + self.kv_heads
        values = rotated + self.kv_heads + self.heads
        found = 2 * each + size.product * (values * self.head_dim + 4 * self.ffn)
        if self.qk_norm:
            found += rotated * _kept_by_norm(self.head_dim, size.product)
        return found + FP32 * self.heads

    def _kept_by_gemma(self, size: Bytes, positions: int) -> int:
        """By a layer, per position. Autocast makes a copy of what goes into each of five linears;
        with a mask, keys and values are repeated for all heads, and it is kept as numbers."""
        norms = self.norms * _kept_by_norm(self.dim, FP32)
        copies = 2 if size.residual == size.product else 5
        found = norms + size.product * (copies * self.dim + positions)
        found += size.product * 4 * (self.heads * self.head_dim + self.ffn)
        if self.qk_norm:
            found += (self.heads + self.kv_heads) * _kept_by_norm(self.head_dim, FP32)
        return found + FP32 * self.heads


def _kept_by_norm(width: int, stored: int) -> int:
    """Per position, of an RMSNorm: stored are bytes of a number of what it has normalised."""
    return (FP32 + stored) * width + FP32


@dataclass(frozen=True, kw_only=True)
class HFVisionPart(Part):
    """linears: (in, out) of each in a block; merged: of those that work on merged tokens, `tokens`
    of an image. pixels: numbers of a patch."""

    width: int
    heads: int
    ffn: int
    linears: tuple[tuple[int, int], ...]
    patches: int
    pixels: int
    merged: tuple[tuple[int, int], ...]
    tokens: int

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        images, patches, count = rows.images, self.patches, self.n_blocks
        products = sum(into * out for into, out in self.linears)
        first = 2.0 * patches * self.pixels * self.width
        merging = sum(2.0 * self.tokens * into * out for into, out in self.merged)
        kept = patches * self._kept(size)
        # Of each merger: a norm's input, its output, and GELU's.
        rest = patches * self.pixels * size.product
        rest += sum(self.tokens * 2 * size.product * into for into, _ in self.merged)
        once = Pass(
            linear=images * (first + merging + 2.0 * count * patches * products),
            leaf=images * first,
            scores=images * count * 4.0 * self.width * patches**2,
            blocks=images * count * kept,
            rest=float(images * rest),
            inputs=images * count * patches * size.residual * self.width,
            block=images * kept,
        )
        return self.reading.of(once) if rows.modality == ROBOT else once

    def _kept(self, size: Bytes) -> int:
        """By a layer, per patch: norms, q, k and v, their rotated copies, outputs of each image and
        of all, GELU's input and output."""
        norms = 2 * (size.residual + size.product) * self.width + 4 * FP32
        attention = 7 * size.product * self.width + FP32 * self.heads
        return norms + attention + 2 * size.product * self.ffn


def vlm_parts(config: HFVLMConfig, place: str) -> list[Part]:
    """FoundryError where its architecture is not known here."""
    return module_parts(shell(config), place)


def vlm_image_tokens(config: HFVLMConfig) -> ImageTokens:
    """Without a tokenizer at hand, what its template writes around images is taken for two tokens
    an image and sixteen a row."""
    model = shell(config)
    marks = model.config.marks or PromptMarks(
        opening=(0,) * 16, image_before=(0,), image_after=(0,)
    )
    return ImageTokens(each=model.tokens_per_image, marks=marks)


def module_parts(model: HFVLM, place: str = "") -> list[Part]:
    """Of a module, on whatever device. place: of it in a larger one."""
    prefix = f"{place}.model.model" if place else "model.model"
    projector = model.parts["projector"]
    found = [_vision(model, prefix)]
    # Gemma's is a bare matrix.
    matrices = [p for p in parameters_of(projector) if p.dim() == 2]
    if matrices:
        linears = tuple((p.shape[1], p.shape[0]) for p in matrices)
        found.append(
            ProjectorPart(
                name="projector",
                place=prefix,
                own=_elements(projector),
                tokens=model.tokens_per_image,
                linears=linears,
            )
        )
    return [*found, _language(model, prefix)]


def _language(model: HFVLM, prefix: str) -> HFLanguagePart:
    text, layer = model.settings, model.text_layers[0]
    heads = text.num_attention_heads
    tables = model.model.get_output_embeddings(), model.model.get_input_embeddings()
    return HFLanguagePart(
        name="language",
        place=f"{prefix}.language_model",
        own=_elements(model.parts["language"]),
        block=_elements([layer]),
        n_blocks=model.n_layers,
        vocabulary=model.vocab_size,
        dim=model.dim,
        tied=tables[0].weight is tables[1].weight,
        linears={name.rpartition(".")[2]: sizes for name, sizes in _linears(layer)},
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or model.dim // heads,
        ffn=text.intermediate_size,
        keys_values=model.key_values,
        norms=sum(type(one).__name__.endswith("RMSNorm") for one in layer.children()),
        gemma=text.model_type.startswith("gemma"),
        qk_norm=any("q_norm" in name for name, _ in layer.named_modules()),
    )


def _vision(model: HFVLM, prefix: str) -> Part:
    modules, settings = model.parts["vision"], model.model.config.vision_config
    lists = [list(m) for one in modules for m in one.modules() if isinstance(m, nn.ModuleList)]
    blocks = max(lists, key=len)
    inside = {id(one) for block in blocks for one in block.modules()}
    return HFVisionPart(
        name="vision",
        place=f"{prefix}.visual",
        own=_elements(modules),
        block=_elements(blocks[:1]),
        n_blocks=len(blocks),
        width=settings.hidden_size,
        heads=getattr(settings, "num_heads", None) or settings.num_attention_heads,
        ffn=settings.intermediate_size,
        linears=tuple(sizes for _, sizes in _linears(blocks[0])),
        patches=((model.config.image_size or 0) // settings.patch_size) ** 2,
        pixels=3 * settings.patch_size**2 * getattr(settings, "temporal_patch_size", 1),
        merged=tuple(_outside(modules, inside)),
        tokens=model.tokens_per_image,
    )


def shell(config: HFVLMConfig) -> HFVLM:
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


def _elements(modules: Sequence[nn.Module]) -> int:
    return sum(p.numel() for p in parameters_of(modules))


def _linears(module: nn.Module) -> Iterator[tuple[str, tuple[int, int]]]:
    """Dotted name, (in, out) of each."""
    for name, one in module.named_modules():
        if isinstance(one, nn.Linear):
            yield name, (one.in_features, one.out_features)


def _outside(modules: Iterable[nn.Module], inside: set[int]) -> Iterator[tuple[int, int]]:
    for module in modules:
        for one in module.modules():
            if isinstance(one, nn.Linear) and id(one) not in inside:
                yield one.in_features, one.out_features
