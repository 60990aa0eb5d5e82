"""A model by its parts (language, vision, projector, head): parameters, and what a row costs each
of them in a forward pass. No torch.

Legend: T positions of a row, p patches of an image, r noise draws, S tokens of the head's sequence,
D width of a part, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from foundry_core.data.loading.config import ROBOT
from foundry_core.models.config import (
    ConvViTConfig,
    ProjectorConfig,
    TransformerConfig,
    ViTConfig,
)
from foundry_core.models.heads.base import HeadSizes, TransformerHeadConfig
from foundry_core.models.sizes import required
from foundry_core.training.sizing.shapes import (
    FP32,
    BlockShape,
    Bytes,
    head_block,
    language_block,
    vision_block,
)
from foundry_core.training.sizing.workload import Rows

INDEX = 8  # bytes of an int64


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One row's forward pass through a part.

    linear, scores: FLOPs of products with weights, and of attention. leaf: of `linear`, what works
    on data, of which no gradient is asked; entry: what works on the part before. blocks, rest:
    bytes kept for the backward pass, of blocks and of all else. inputs: what blocks keep that are
    computed again; block: what one of them keeps meanwhile.
    """

    linear: float = 0.0
    leaf: float = 0.0
    entry: float = 0.0
    scores: float = 0.0
    blocks: float = 0.0
    rest: float = 0.0
    inputs: float = 0.0
    block: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Part(ABC):
    """name: as in resources.recompute. place: dotted name of its modules in the model. own:
    elements of its parameters; block: of one of its blocks. adapted: low-rank adapters alone are
    trained; adapters: their elements."""

    name: str
    place: str
    own: int
    block: int = 0
    n_blocks: int = 0
    adapted: bool = False
    adapters: int = 0

    @property
    def parameters(self) -> int:
        return self.own + self.adapters

    def multiplied(self, logits: bool) -> int:
        """Elements that products work with. logits: whether they are asked for."""
        return self.own

    @abstractmethod
    def passed(self, rows: Rows, size: Bytes) -> Pass:
        """One row of these through this part."""


@dataclass(frozen=True, kw_only=True)
class DecoderPart(Part):
    """Of what gives logits. vocabulary: rows of its embedding, and of its head, which may be one.
    linears: name → (in, out) of each in a block."""

    vocabulary: int
    dim: int
    tied: bool
    linears: Mapping[str, tuple[int, int]]

    @property
    def table(self) -> int:
        """Elements of the embedding, and of an untied head."""
        return self.vocabulary * self.dim

    def multiplied(self, logits: bool) -> int:
        looked_up = 0 if self.tied else self.table
        return self.own - looked_up - (0 if logits else self.table)


@dataclass(frozen=True, kw_only=True)
class LanguagePart(DecoderPart):
    """The native decoder."""

    shape: BlockShape
    norm_after_embedding: bool
    bidirectional: bool = False

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        shape, positions, count = self.shape, rows.positions, self.n_blocks
        kept = positions * shape.kept(size)
        found = Pass(
            scores=count * shape.score_flops(positions),
            inputs=count * positions * size.product * shape.dim,
            block=kept,
        )
        # The embedding's indices; with images the places they go to.
        rest = float(positions * INDEX * (3 if rows.images else 1))
        if self.norm_after_embedding:
            rest += positions * shape.kept_by_norm
        if self.bidirectional and rows.images:
            rest += positions**2
        if rows.modality == ROBOT:
            # The last block's feed-forward runs at <obs> alone.
            last = positions * shape.kept_by_attention(size)
            linear = (count - 1) * shape.linear_flops(positions)
            linear += shape.linear_flops(positions, 1)
            return replace(found, linear=linear, blocks=(count - 1) * kept + last, rest=rest)
        linear = count * shape.linear_flops(positions) + 2.0 * rows.targets * self.table
        rest += positions * shape.kept_by_norm
        rest += rows.targets * (size.product * shape.dim + INDEX)
        return replace(found, linear=linear, blocks=count * kept, rest=rest)


def language_part(config: TransformerConfig, place: str) -> LanguagePart:
    vocabulary = required(config, "vocab_size", config.vocab_size)
    shape = language_block(config)
    tables = vocabulary * config.dim * (1 if config.tie_embeddings else 2)
    norms = shape.norm_parameters * (1 + config.norm_after_embedding)
    return LanguagePart(
        name="language",
        place=place,
        own=config.n_layers * shape.parameters + tables + norms,
        block=shape.parameters,
        n_blocks=config.n_layers,
        vocabulary=vocabulary,
        dim=config.dim,
        tied=config.tie_embeddings,
        linears=shape.linears,
        shape=shape,
        norm_after_embedding=config.norm_after_embedding,
    )


@dataclass(frozen=True, kw_only=True)
class VisionPart(Part):
    """A native tower."""

    config: ViTConfig | ConvViTConfig
    shape: BlockShape

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        shape, patches, images = self.shape, self.config.grid**2, rows.images
        kept = patches * shape.kept(size)
        first, *others = (
            2.0 * into * out * kernel**2 * side**2
            for into, out, kernel, side in _convolutions(self.config)
        )
        rest = size.product * 3 * self.config.image_size**2 + patches * shape.kept_by_norm
        # Between convolutions: what goes into the norm, into SiLU, into the next one.
        for _, out, _, side in _convolutions(self.config)[:-1]:
            rest += 3 * size.product * out * side**2
        blocks = self.n_blocks * shape.linear_flops(patches)
        return Pass(
            linear=images * (first + sum(others) + blocks),
            leaf=images * first,
            scores=images * self.n_blocks * shape.score_flops(patches),
            blocks=images * self.n_blocks * kept,
            rest=images * rest,
            inputs=images * self.n_blocks * patches * size.product * shape.dim,
            block=images * kept,
        )


def vision_part(config: ViTConfig | ConvViTConfig, place: str) -> VisionPart:
    shape = vision_block(config)
    stem = sum(into * out * side**2 + out for into, out, side, _ in _convolutions(config))
    if isinstance(config, ConvViTConfig):
        stem += sum(2 * width for width in config.stem_dims)
    positions = config.grid**2 * config.dim
    return VisionPart(
        name="vision",
        place=place,
        own=stem + positions + config.n_layers * shape.parameters + shape.norm_parameters,
        block=shape.parameters,
        n_blocks=config.n_layers,
        config=config,
        shape=shape,
    )


def _convolutions(config: ViTConfig | ConvViTConfig) -> list[tuple[int, int, int, int]]:
    """(channels in, channels out, side of the kernel, side of what comes out) of each."""
    if isinstance(config, ViTConfig):
        return [(3, config.dim, config.patch_size, config.grid)]
    widths = (3, *config.stem_dims, config.dim)
    kernels = (5, *[3] * len(config.stem_dims))
    sides = [config.image_size // 2 ** (n + 1) for n in range(len(kernels))]
    return [
        (*pair, kernel, side)
        for pair, kernel, side in zip(pairwise(widths), kernels, sides, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class ProjectorPart(Part):
    """Linears between tower and decoder. tokens: of an image; linears: (in, out) of each."""

    tokens: int
    linears: tuple[tuple[int, int], ...]

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        tokens = rows.images * self.tokens
        linear = [2.0 * tokens * into * out for into, out in self.linears]
        # Of a hidden layer GELU's input and output.
        (first, _), *hidden = self.linears
        kept = size.product * tokens * (first + 2 * sum(into for into, _ in hidden))
        return Pass(linear=sum(linear), entry=linear[0], rest=kept)


def projector_part(
    config: ProjectorConfig, place: str, *, patches: int, width: int, out: int
) -> ProjectorPart:
    """patches: of an image; width: of the tower; out: of the decoder."""
    into, hidden = width * config.pixel_shuffle**2, config.hidden_dim or out
    dims = (into, out) if config.kind == "linear" else (into, hidden, out)
    linears = tuple(pairwise(dims))
    return ProjectorPart(
        name="projector",
        place=place,
        own=sum(a * b + (b if config.bias else 0) for a, b in linears),
        tokens=patches // config.pixel_shuffle**2,
        linears=linears,
    )


@dataclass(frozen=True, kw_only=True)
class HeadPart(Part):
    """A head on the transformer of models/heads/networks/trunk.py. draws 0: it draws no noise."""

    dim: int
    shape: BlockShape
    sizes: HeadSizes
    time: str | None
    draws: int

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        if rows.modality != ROBOT:
            return Pass()
        shape, sizes, dim, draws = self.shape, self.sizes, self.dim, max(1, self.draws)
        horizon, actions = sizes["horizon"], sizes["action_dim"]
        steps = sizes["proprio_steps"] if sizes["proprio_dim"] else 0
        positions = 1 + steps + horizon + (self.time == "token")
        kept = positions * shape.kept(size)
        entry = 2.0 * dim * sizes["condition_dim"]
        proprio = 2.0 * dim * steps * sizes["proprio_dim"]
        each = self.n_blocks * (shape.linear_flops(positions) + shape.modulation_flops())
        each += 2.0 * horizon * actions * dim * (2 if self.draws else 1)
        leaf = 2.0 * horizon * actions * dim if self.draws else 0.0
        if self.time:
            waves = 2.0 * _waves(dim) * 4 * dim
            each += waves + 2.0 * 4 * dim * dim
            leaf += waves
        # Of the last norm all positions, of which the actions are a view; the errors.
        rest = positions * shape.kept_by_norm + horizon * (size.product * dim + 3 * FP32 * actions)
        return Pass(
            linear=entry + proprio + draws * each,
            leaf=proprio + draws * leaf,
            entry=entry,
            scores=draws * self.n_blocks * shape.score_flops(positions),
            blocks=draws * self.n_blocks * kept,
            rest=draws * rest + size.product * sizes["condition_dim"],
            inputs=draws * self.n_blocks * positions * size.residual * dim,
            block=draws * kept,
        )


def transformer_head_part(config: TransformerHeadConfig, sizes: HeadSizes) -> HeadPart:
    draws: int = getattr(config, "num_noise_samples", 0)
    time: str | None = getattr(config, "time", None)
    shape, dim = head_block(config, modulated=time == "adaln"), config.dim
    own = config.n_layers * shape.parameters + shape.norm_parameters
    own += (sizes["condition_dim"] + 1 + sizes["horizon"]) * dim
    if sizes["proprio_dim"]:
        own += (sizes["proprio_dim"] + 1 + sizes["proprio_steps"]) * dim
    if time:
        own += (_waves(dim) + 1) * 4 * dim + (4 * dim + 1) * dim
    if draws:
        own += (sizes["action_dim"] + 1) * dim
    own += (dim + 1) * sizes["action_dim"]
    return HeadPart(
        name="head",
        place="head",
        own=own,
        block=shape.parameters,
        n_blocks=config.n_layers,
        dim=dim,
        shape=shape,
        sizes=sizes,
        time=time,
        draws=draws,
    )


def _waves(dim: int) -> int:
    """Sines and cosines of a time."""
    return 2 * (dim // 2)
