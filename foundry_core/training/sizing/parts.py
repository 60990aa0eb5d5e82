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
    key_value_shape,
)
from foundry_core.models.heads.base import HeadSizes, KeyValueShape, TransformerHeadConfig
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

    glance: FLOPs of what no gradient passes through. linear, scores: FLOPs of products with
    weights, and of attention. leaf: of `linear`, what works on data, of which no gradient is asked;
    entry: what works on the part before. blocks, rest: bytes kept for the backward pass, of blocks
    and of all else. inputs: what blocks keep that are computed again; block: what one of them keeps
    meanwhile.
    """

    glance: float = 0.0
    linear: float = 0.0
    leaf: float = 0.0
    entry: float = 0.0
    scores: float = 0.0
    blocks: float = 0.0
    rest: float = 0.0
    inputs: float = 0.0
    block: float = 0.0

    def __add__(self, other: "Pass") -> "Pass":
        """Of both, one after the other; what a block keeps meanwhile is the larger's."""
        both = {n: getattr(self, n) + getattr(other, n) for n in vars(self)}
        return Pass(**both | {"block": max(self.block, other.block)})

    def times(self, count: int) -> "Pass":
        """Of so many."""
        return Pass(**{name: count * value for name, value in vars(self).items()})

    def forgotten(self, share: float = 1.0) -> "Pass":
        """The same where no gradient comes to a share of its products. Autograd keeps all."""
        gone = Pass(linear=share * self.linear, scores=share * self.scores)
        return replace(
            self,
            glance=self.glance + gone.linear + gone.scores,
            linear=self.linear - gone.linear,
            scores=self.scores - gone.scores,
            leaf=(1 - share) * self.leaf,
            entry=(1 - share) * self.entry,
        )


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a policy's head has its backbone read a demonstration. looks: for features, or keys and
    values: these of the first so many `layers` (null: features). insulated: no gradient of it
    reaches the backbone. spoken: tokens that it says behind the prompt, in a reading of its own, of
    so many in `vocabulary`."""

    looks: bool = True
    layers: int | None = None
    insulated: bool = False
    spoken: int = 0
    vocabulary: int = 0

    def of(self, one: Pass) -> Pass:
        """What a part costs that reads the prompt alone."""
        look = (one.forgotten() if self.insulated else one) if self.looks else Pass()
        return look + one if self.spoken else look

    def of_layers(self, one: Pass, layer: float, keys: float, scores: float) -> Pass:
        """What a decoder costs that looks at the prompt. layer, keys, scores: FLOPs of a layer's
        products, of those that make its keys and values, and of its attention. Of the last layer
        that is read these keys alone have a gradient, of those behind it nothing."""
        if self.insulated:
            return one.forgotten()
        if self.layers is None:
            return one
        before = self.layers - 1
        linear, seen = before * layer + keys, before * scores
        glance = one.linear + one.scores - linear - seen
        return replace(one, glance=glance, linear=linear, scores=seen)


@dataclass(frozen=True, kw_only=True)
class Part(ABC):
    """name: as in resources.recompute. place: dotted name of its modules in the model. own:
    elements of its parameters; block: of one of its blocks. adapted: low-rank adapters alone are
    trained; adapters: their elements; whole: of what is trained in full beside them. reading: of
    demonstrations."""

    name: str
    place: str
    own: int
    block: int = 0
    n_blocks: int = 0
    adapted: bool = False
    adapters: int = 0
    whole: int = 0
    reading: Reading = Reading()

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
    keys_values: KeyValueShape

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
        if rows.modality != ROBOT:
            return self._pass(rows, size, rows.targets * self.table)
        reading = self.reading
        look = Pass()
        if reading.looks:
            shape = self.shape
            layer, keys = shape.linear_flops(rows.positions), shape.key_flops(rows.positions)
            scores = shape.score_flops(rows.positions)
            look = reading.of_layers(self._pass(rows, size, None), layer, keys, scores)
        if not reading.spoken:
            return look
        positions = rows.positions + reading.spoken
        longer = replace(rows, positions=positions, targets=reading.spoken)
        said = self._pass(longer, size, reading.spoken * reading.vocabulary * self.dim)
        # The rows of the output layer and the logits of the softmax, in float32, too.
        taken = size.product * reading.vocabulary * self.dim
        logits = (size.product + 2 * FP32) * reading.spoken * reading.vocabulary
        return look + replace(said, rest=said.rest + taken + logits)

    def _pass(self, rows: Rows, size: Bytes, output: float | None) -> Pass:
        """output: multiplications of its output layer; None where its last block is read at a
        single position."""
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
        if output is None:
            # The last block's feed-forward runs at <obs> alone.
            last = positions * shape.kept_by_attention(size)
            linear = (count - 1) * shape.linear_flops(positions)
            linear += shape.linear_flops(positions, 1)
            return replace(found, linear=linear, blocks=(count - 1) * kept + last, rest=rest)
        linear = count * shape.linear_flops(positions) + 2.0 * output
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
        keys_values=key_value_shape(config),
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
        once = Pass(
            linear=images * (first + sum(others) + blocks),
            leaf=images * first,
            scores=images * self.n_blocks * shape.score_flops(patches),
            blocks=images * self.n_blocks * kept,
            rest=images * rest,
            inputs=images * self.n_blocks * patches * size.product * shape.dim,
            block=images * kept,
        )
        return self.reading.of(once) if rows.modality == ROBOT else once


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
        once = Pass(linear=sum(linear), entry=linear[0], rest=kept)
        return self.reading.of(once) if rows.modality == ROBOT else once


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
    """A head on the transformer of models/heads/networks/trunk.py. draws 0: it draws no noise.
    tokens: of the condition; more: that it reads besides."""

    dim: int
    shape: BlockShape
    sizes: HeadSizes
    time: str | None
    draws: int
    tokens: int = 1
    more: int = 0

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        if rows.modality != ROBOT:
            return Pass()
        shape, sizes, dim, draws = self.shape, self.sizes, self.dim, max(1, self.draws)
        horizon, actions = sizes["horizon"], sizes["action_dim"]
        steps = sizes["proprio_steps"] if sizes["proprio_dim"] else 0
        positions = self.tokens + self.more + steps + horizon + (self.time == "token")
        kept = positions * shape.kept(size)
        entry = 2.0 * self.tokens * dim * sizes["condition_dim"]
        proprio = 2.0 * dim * steps * sizes["proprio_dim"]
        each = self.n_blocks * (shape.linear_flops(positions) + shape.modulation_flops())
        each += 2.0 * horizon * actions * dim * (2 if self.draws else 1)
        leaf = 2.0 * horizon * actions * dim if self.draws else 0.0
        if self.time:
            of_waves = 2.0 * waves(dim) * 4 * dim
            each += of_waves + 2.0 * 4 * dim * dim
            leaf += of_waves
        # Of the last norm all positions, of which the actions are a view; the errors.
        rest = positions * shape.kept_by_norm + horizon * (size.product * dim + 3 * FP32 * actions)
        return Pass(
            linear=entry + proprio + draws * each,
            leaf=proprio + draws * leaf,
            entry=entry,
            scores=draws * self.n_blocks * shape.score_flops(positions),
            blocks=draws * self.n_blocks * kept,
            rest=draws * rest + size.product * self.tokens * sizes["condition_dim"],
            inputs=draws * self.n_blocks * positions * size.residual * dim,
            block=draws * kept,
        )


def transformer_head_part(
    config: TransformerHeadConfig, sizes: HeadSizes, tokens: int = 1
) -> HeadPart:
    """tokens: of the condition."""
    draws: int = getattr(config, "num_noise_samples", 0)
    time: str | None = getattr(config, "time", None)
    shape, dim = head_block(config, modulated=time == "adaln"), config.dim
    own = config.n_layers * shape.parameters + shape.norm_parameters
    own += (sizes["condition_dim"] + 1 + sizes["horizon"]) * dim
    if sizes["proprio_dim"]:
        own += (sizes["proprio_dim"] + 1 + sizes["proprio_steps"]) * dim
    if time:
        own += (waves(dim) + 1) * 4 * dim + (4 * dim + 1) * dim
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
        tokens=tokens,
    )


def waves(dim: int) -> int:
    """Sines and cosines of a time."""
    return 2 * (dim // 2)
