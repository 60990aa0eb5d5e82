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
    on data, of which no gradient is asked; entry: what works on the part before. kept: bytes for the backward pass, of blocks and of the
    rest. inputs: what blocks keep that are computed again; block: what one of them keeps meanwhile.
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
    """name: as in resources.recompute. place: dotted name of its modules in the model. adapted:
    low-rank adapters alone are trained. adapters: their elements."""

    name: str
    place: str = ""
    adapted: bool = False
    adapters: int = 0

    @property
    @abstractmethod
    def own(self) -> int:
        """Elements of its own parameters."""

    @property
    @abstractmethod
    def block(self) -> int:
        """Elements of one of its blocks."""

    @property
    @abstractmethod
    def n_blocks(self) -> int: ...

    def multiplied(self, logits: bool) -> int:
        """Elements that products work with. logits: whether they are asked for."""
        return self.own

    @property
    def parameters(self) -> int:
        return self.own + self.adapters

    @abstractmethod
    def passed(self, rows: Rows, size: Bytes) -> Pass:
        """Through this part."""


@dataclass(frozen=True, kw_only=True)
class DecoderPart(Part):
    """Of what gives logits. vocabulary: rows of its embedding, and of its head."""

    vocabulary: int

    @property
    @abstractmethod
    def dim(self) -> int: ...

    @property
    @abstractmethod
    def tied(self) -> bool: ...

    @property
    @abstractmethod
    def linears(self) -> Mapping[str, tuple[int, int]]:
        """Name → (in, out) of each linear of a block."""

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

    config: TransformerConfig
    bidirectional: bool = False

    @property
    def shape(self) -> BlockShape:
        return language_block(self.config)

    @property
    def dim(self) -> int:
        return self.config.dim

    @property
    def tied(self) -> bool:
        return self.config.tie_embeddings

    @property
    def linears(self) -> Mapping[str, tuple[int, int]]:
        return self.shape.linears

    @property
    def own(self) -> int:
        norms = 1 + self.config.norm_after_embedding
        tables = 1 if self.config.tie_embeddings else 2
        per_norm = self.config.dim * (2 if self.config.norm == "layer" else 1)
        return self.n_blocks * self.block + tables * self.table + norms * per_norm

    @property
    def block(self) -> int:
        return self.shape.parameters

    @property
    def n_blocks(self) -> int:
        return self.config.n_layers

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        shape, positions, count = self.shape, rows.positions, self.n_blocks
        kept = positions * shape.kept(size)
        found = Pass(
            scores=count * shape.score_flops(positions),
            inputs=count * positions * size.residual * shape.dim,
            block=kept,
        )
        # The embedding's indices; with images the places they go to.
        rest = positions * INDEX * (3 if rows.images else 1)
        if self.config.norm_after_embedding:
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


@dataclass(frozen=True, kw_only=True)
class VisionPart(Part):
    """A native tower."""

    config: ViTConfig | ConvViTConfig

    @property
    def shape(self) -> BlockShape:
        return vision_block(self.config)

    @property
    def own(self) -> int:
        positions = self.config.grid**2 * self.config.dim
        return sum(self._stem()) + positions + self.n_blocks * self.block + 2 * self.config.dim

    @property
    def block(self) -> int:
        return self.shape.parameters

    @property
    def n_blocks(self) -> int:
        return self.config.n_layers

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        shape, patches, images = self.shape, self.config.grid**2, rows.images
        kept = patches * shape.kept(size)
        first, others = self._stem_flops()
        pixels = size.product * 3 * self.config.image_size**2
        return Pass(
            linear=images * (first + others + self.n_blocks * shape.linear_flops(patches)),
            leaf=images * first,
            scores=images * self.n_blocks * shape.score_flops(patches),
            blocks=images * self.n_blocks * kept,
            rest=images * (pixels + self._stem_kept(size) + patches * shape.kept_by_norm),
            inputs=images * self.n_blocks * patches * size.residual * shape.dim,
            block=images * kept,
        )

    def _convolutions(self) -> list[tuple[int, int, int, int]]:
        """(channels in, channels out, side of the kernel, side of what comes out) of each."""
        config = self.config
        if isinstance(config, ViTConfig):
            return [(3, config.dim, config.patch_size, config.grid)]
        widths = (3, *config.stem_dims, config.dim)
        kernels = (5, *[3] * len(config.stem_dims))
        sides = [config.image_size // 2 ** (n + 1) for n in range(len(kernels))]
        return [
            (*pair, kernel, side)
            for pair, kernel, side in zip(pairwise(widths), kernels, sides, strict=True)
        ]

    def _stem(self) -> list[int]:
        """Elements of each convolution, and of the norms between them."""
        found = [into * out * side**2 + out for into, out, side, _ in self._convolutions()]
        norms = self.config.stem_dims if isinstance(self.config, ConvViTConfig) else ()
        return [*found, *(2 * width for width in norms)]

    def _stem_flops(self) -> tuple[float, float]:
        """(of the first convolution, of the others), of an image."""
        first, *others = (
            2.0 * into * out * kernel**2 * side**2
            for into, out, kernel, side in self._convolutions()
        )
        return first, sum(others)

    def _stem_kept(self, size: Bytes) -> int:
        """Between convolutions: what goes into the norm, into SiLU, into the next one."""
        between = [out * side**2 for _, out, _, side in self._convolutions()[:-1]]
        return 3 * size.product * sum(between)


@dataclass(frozen=True, kw_only=True)
class ProjectorPart(Part):
    """Pixel shuffle and its linears. patches: of an image."""

    config: ProjectorConfig
    patches: int
    width: int
    out: int

    @property
    def dims(self) -> tuple[int, ...]:
        into, hidden = self.width * self.config.pixel_shuffle**2, self.config.hidden_dim or self.out
        return (into, self.out) if self.config.kind == "linear" else (into, hidden, self.out)

    @property
    def own(self) -> int:
        return sum(a * b + (b if self.config.bias else 0) for a, b in pairwise(self.dims))

    @property
    def block(self) -> int:
        return max(a * b for a, b in pairwise(self.dims))

    @property
    def n_blocks(self) -> int:
        return 0

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        tokens = rows.images * self.patches // self.config.pixel_shuffle**2
        into, *hidden = self.dims[:-1]
        linear = [2.0 * tokens * a * b for a, b in pairwise(self.dims)]
        # Of a hidden layer GELU's input and output.
        kept = size.product * tokens * (into + 2 * sum(hidden))
        return Pass(linear=sum(linear), entry=linear[0], rest=kept)


@dataclass(frozen=True, kw_only=True)
class HeadPart(Part):
    """A head on the transformer of models/heads/networks/trunk.py. draws 0: it draws no noise."""

    config: TransformerHeadConfig
    sizes: HeadSizes
    time: str | None
    draws: int

    @property
    def shape(self) -> BlockShape:
        return head_block(self.config, modulated=self.time == "adaln")

    @property
    def own(self) -> int:
        dim, sizes = self.config.dim, self.sizes
        found = (sizes["condition_dim"] + 1) * dim
        if sizes["proprio_dim"]:
            found += (sizes["proprio_dim"] + 1 + sizes["proprio_steps"]) * dim
        found += sizes["horizon"] * dim
        if self.time:
            found += 2 * (dim // 2) * 4 * dim + 4 * dim + 4 * dim * dim + dim
        if self.draws:
            found += (sizes["action_dim"] + 1) * dim
        norm = dim * (2 if self.config.norm == "layer" else 1)
        return found + self.n_blocks * self.block + norm + (dim + 1) * sizes["action_dim"]

    @property
    def block(self) -> int:
        return self.shape.parameters

    @property
    def n_blocks(self) -> int:
        return self.config.n_layers

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        if rows.modality != ROBOT:
            return Pass()
        shape, sizes, dim = self.shape, self.sizes, self.config.dim
        draws, horizon, actions = max(1, self.draws), sizes["horizon"], sizes["action_dim"]
        steps = sizes["proprio_steps"] if sizes["proprio_dim"] else 0
        positions = 1 + steps + horizon + (self.time == "token")
        kept = positions * shape.kept(size)
        entry = 2.0 * dim * sizes["condition_dim"]
        proprio = 2.0 * dim * steps * sizes["proprio_dim"]
        each = self.n_blocks * (shape.linear_flops(positions) + shape.modulation_flops())
        each += 2.0 * horizon * actions * dim * (2 if self.draws else 1)
        leaf = 2.0 * horizon * actions * dim if self.draws else 0.0
        if self.time:
            waves = 2.0 * 2 * (dim // 2) * 4 * dim
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
