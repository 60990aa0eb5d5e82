"""Model architectures as data: torch-free, frozen, chosen by `kind`.

Sizes left null are filled by a formula (properties) or by the stage that knows them (`vocab_size`
from the tokenizer, `language`/`backbone` from the upstream artifact).

Legend: H heads, D width, V vocabulary, K horizon, A action dim, P proprio dim, S proprio steps.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from foundry_core.config.canonical import Location, OmitWhen
from foundry_core.config.registry import OneOf
from foundry_core.data.robot.transform_config import PromptMarks
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import fingerprint, is_remote
from foundry_core.models.heads import HEADS
from foundry_core.models.heads.base import ALL_NEEDS, HeadConfig, KeyValueShape, Need
from foundry_core.models.sizes import check_multiple, positive, swiglu_dim
from foundry_core.pipeline.stage import Config


class Pretrained(Config):
    """Weights of others: a commit of the hub, or a folder."""

    source: str | None = Field(
        None, description="hub name; what begins with '/', '.' or '~' is taken as `path`"
    )
    revision: str | None = Field(None, description="commit of the hub; training asks for one")
    path: Location[str | None] = Field(
        None, description="folder of config.json and safetensors; identified by content"
    )

    @model_validator(mode="before")
    @classmethod
    def _folder_as_path(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("path") is not None:
            return values
        source = values.get("source")
        if isinstance(source, str) and source.startswith(("/", ".", "~")):
            return {**values, "source": None, "path": source}
        return values

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        others = getattr(self, "config", None)
        if len([x for x in (self.source, self.path, others) if x is not None]) != 1:
            random = " or config (random weights)" if hasattr(self, "config") else ""
            raise ValueError(f"give either source (hub name), path (folder){random}")
        if self.path is not None and self.revision is not None:
            raise ValueError("revision belongs to a hub name: a folder is what it contains")
        if is_remote(self.source or self.path or ""):
            raise ValueError("weights load from the hub or a local folder: download these first")
        return self

    @property
    def has_weights(self) -> bool:
        """Whether a checkpoint is named, whose tokenizer comes along."""
        return self.source is not None or self.path is not None


class HFConfig(Pretrained):
    """Base of what transformers builds: pretrained, from the hub or a folder, or random.

    After loading, `config` holds the resolved transformers config and `origin` the hub name, so
    that a saved model needs neither hub nor folder again. A folder leaves no trace there: where
    it lay must not change the bytes of what was trained on it.
    """

    kind: str
    config: dict[str, Any] | None = Field(None, description="architecture, for random weights")
    origin: str | None = Field(
        None,
        description="hub name that the weights came from; written by the stage, not set by hand",
    )


class TransformerConfig(Config):
    """Pre-norm decoder without biases, unless asked for: RoPE, SwiGLU, optional GQA and QK-norm.

    `norm: rms` gives exactly Llama, with `qk_norm` Qwen3, with `qkv_bias` Qwen2.
    """

    kind: Literal["transformer"] = "transformer"
    vocab_size: int | None = positive(
        None, description="null: the tokenizer's; more: the table is padded with unused rows"
    )
    dim: int = positive(description="width of the residual stream")
    n_layers: int = positive(description="transformer blocks")
    n_heads: int = positive(description="query heads of attention")
    n_kv_heads: int | None = positive(None, description="null: n_heads (no grouping)")
    head_dim: int | None = positive(None, description="null: dim / n_heads")
    ffn_dim: int | None = positive(None, description="null: 256·ceil(floor(8·dim/3)/256)")
    norm: Literal["layer", "rms"] = Field(
        "layer", description="layer: LayerNorm; rms: RMSNorm, as Llama and Qwen have it"
    )
    norm_eps: float = Field(1e-5, gt=0, description="added to the variance in norms")
    qk_norm: bool = Field(
        False, description="RMSNorm of queries and keys per head, as Qwen3 has it"
    )
    qkv_bias: Annotated[bool, OmitWhen(False)] = Field(
        False, description="biases of the query, key and value projections, as Qwen2 has them"
    )
    norm_after_embedding: bool = Field(False, description="one more norm, of the embedded tokens")
    rope_theta: float = Field(
        10000.0, gt=0, description="base of the rotary positions' wavelengths, in tokens"
    )
    tie_embeddings: bool = Field(False, description="the output layer is the embedding table")
    logit_soft_cap: float | None = Field(None, gt=0, description="cap·tanh(logits/cap)")
    context: int = positive(2048, description="longest sequence it is trained on; for export")

    @model_validator(mode="after")
    def _shapes(self) -> "TransformerConfig":
        if self.head_dim is None and self.dim % self.n_heads:
            raise ValueError(
                f"dim {self.dim} is not divisible by n_heads {self.n_heads}: set head_dim"
            )
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.kv_heads}"
            )
        if self.key_dim % 2:
            raise ValueError(f"head_dim {self.key_dim} is odd: RoPE rotates pairs")
        return self

    @property
    def kv_heads(self) -> int:
        return self.n_kv_heads or self.n_heads

    @property
    def key_dim(self) -> int:
        return self.head_dim or self.dim // self.n_heads

    @property
    def hidden_dim(self) -> int:
        return self.ffn_dim or swiglu_dim(self.dim)


class HFLanguageConfig(HFConfig):
    """A transformers causal LM as backbone."""

    kind: Literal["hf_causal_lm"] = "hf_causal_lm"
    vocab_size: int | None = positive(None, description="null: as the checkpoint's")


def by_kind(default: str) -> BeforeValidator:
    """Of a field that may hold several kinds: a mapping without `kind` is of the default one."""

    def tagged(value: Any) -> Any:
        return {"kind": default, **value} if isinstance(value, dict) else value

    return BeforeValidator(tagged)


LanguageConfig = Annotated[TransformerConfig | HFLanguageConfig, Field(discriminator="kind")]


class ImageNormalization(Config):
    """uint8 → (x/255 − mean)/std, per channel; done inside the vision module."""

    mean: tuple[float, float, float] = Field(
        (0.5, 0.5, 0.5), description="per channel R, G, B, subtracted from values in [0, 1]"
    )
    std: tuple[float, float, float] = Field(
        (0.5, 0.5, 0.5), description="per channel R, G, B, what is left is divided by it"
    )


class _NativeTower(Config):
    """What the two native towers have in common."""

    image_size: int = positive(description="side of the square input, in pixels")
    dim: int = positive(description="width of the blocks")
    n_layers: int = positive(description="transformer blocks")
    n_heads: int = positive(description="heads of attention; they divide dim")
    mlp_dim: int | None = positive(None, description="null: 4·dim")
    norm_eps: float = Field(1e-6, gt=0, description="added to the variance in norms")
    normalization: ImageNormalization = Field(
        ImageNormalization(), description="of the pixels, done inside the tower"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> "_NativeTower":
        check_multiple("dim", self.dim, "n_heads", self.n_heads)
        return self

    @property
    def width(self) -> int:
        return self.dim

    @property
    def hidden_dim(self) -> int:
        return self.mlp_dim or 4 * self.dim


class ViTConfig(_NativeTower):
    """Vision transformer: conv patchify with bias, learned positions, no CLS token."""

    kind: Literal["vit"] = "vit"
    patch_size: int = positive(description="side of a patch, in pixels; divides image_size")

    @model_validator(mode="after")
    def _divisible(self) -> "ViTConfig":
        check_multiple("image_size", self.image_size, "patch_size", self.patch_size)
        return self

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size


class ConvViTConfig(_NativeTower):
    """Strided convolutions (5×5, then 3×3; all stride 2; GroupNorm, SiLU) and ViT blocks.

    Learns from few images: a plain patchify of such small pictures does not. One convolution more
    than `stem_dims` has entries, the last one to `dim`: two entries make patches of 8 pixels,
    three of 16, with a quarter of the tokens in the blocks.
    """

    kind: Literal["conv_vit"] = "conv_vit"
    stem_dims: tuple[int, ...] = Field(
        (32, 64),
        min_length=1,
        description="channels of the stem's convolutions but the last, each a multiple of "
        "stem_groups",
    )
    stem_groups: int = positive(8, description="groups of GroupNorm in the stem")

    @model_validator(mode="after")
    def _divisible(self) -> "ConvViTConfig":
        check_multiple("image_size", self.image_size, "the stem's stride", self.stride)
        for width in (*self.stem_dims, self.dim):
            check_multiple("stem width", width, "stem_groups", self.stem_groups)
        return self

    @property
    def stride(self) -> int:
        return 2 ** (len(self.stem_dims) + 1)

    @property
    def grid(self) -> int:
        return self.image_size // self.stride


class HFVisionConfig(HFConfig):
    """A transformers vision tower (SigLIP, DINOv2/v3, CLIP): last hidden states, CLS dropped."""

    kind: Literal["hf"] = "hf"
    image_size: int = positive(description="side of the square input, in pixels")
    patch_size: int = positive(description="side of a patch, in pixels; divides image_size")
    width: int = positive(description="the tower's hidden size")
    normalization: ImageNormalization = Field(
        ImageNormalization(), description="of the pixels, done before the tower"
    )

    @model_validator(mode="after")
    def _divisible(self) -> "HFVisionConfig":
        check_multiple("image_size", self.image_size, "patch_size", self.patch_size)
        return self

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size


class ResNetConfig(Config):
    """Residual convolutions (He et al. 2016, basic blocks) with GroupNorm in place of batch
    statistics: a 7×7 convolution of stride 2, max-pooling, then a stage per entry of `stages`, each
    after the first of half the side and twice the channels. Fixed sinusoidal positions are added.

    `dim: 64, stages: [2, 2, 2, 2]` is ResNet-18 without its classifier.
    """

    kind: Literal["resnet"] = "resnet"
    image_size: int = positive(description="side of the square input, in pixels")
    dim: int = positive(64, description="channels of the first stage")
    stages: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (2, 2, 2, 2),
        min_length=1,
        description="residual blocks of each stage; each stage after the first halves the side",
    )
    groups: int = positive(16, description="groups of GroupNorm")
    normalization: ImageNormalization = Field(
        ImageNormalization(), description="of the pixels, done inside the tower"
    )

    @model_validator(mode="after")
    def _divisible(self) -> "ResNetConfig":
        stride = 2 ** (len(self.stages) + 1)
        check_multiple("image_size", self.image_size, "the network's stride", stride)
        check_multiple("dim", self.dim, "groups", self.groups)
        # Positions have a sine and a cosine for either axis.
        check_multiple("dim", self.dim, "the parts of a position", 4)
        return self

    @property
    def width(self) -> int:
        return self.dim * 2 ** (len(self.stages) - 1)

    @property
    def grid(self) -> int:
        return self.image_size // 2 ** (len(self.stages) + 1)


VisionConfig = Annotated[
    ViTConfig | ConvViTConfig | ResNetConfig | HFVisionConfig, Field(discriminator="kind")
]


class ProjectorConfig(Config):
    """Pixel shuffle by `pixel_shuffle`, then linear (as published) or linear-GELU-linear."""

    kind: Literal["linear", "mlp"] = Field(
        "linear", description="linear: one layer; mlp: linear, GELU, linear"
    )
    pixel_shuffle: int = positive(1, description="n: n × n neighbouring patches become one token")
    hidden_dim: int | None = positive(None, description="mlp only; null: the language width")
    bias: bool = Field(False, description="biases of the projector's layers")


class VLMConfig(Config):
    """Vision tower + projector + language model. `language: null`: the upstream LLM's."""

    kind: Literal["vlm"] = "vlm"
    language: LanguageConfig | None = Field(
        None, description="null: that of the language model upstream"
    )
    vision: VisionConfig = Field(description="the tower that reads images")
    projector: ProjectorConfig = Field(
        ProjectorConfig(), description="from the tower's patches to tokens of the language model"
    )
    image_attention: Literal["causal", "bidirectional"] = Field(
        "causal",
        description="causal: as text; bidirectional: tokens of one image see each other both ways",
    )
    image_token_id: int | None = Field(None, ge=0, description="null: set by the stage")

    @model_validator(mode="after")
    def _grid(self) -> "VLMConfig":
        check_multiple(
            f"vision grid of {self.vision.grid}×{self.vision.grid} patches: side",
            self.vision.grid,
            "projector.pixel_shuffle",
            self.projector.pixel_shuffle,
        )
        return self

    @property
    def tokens_per_image(self) -> int:
        return (self.vision.grid // self.projector.pixel_shuffle) ** 2

    @property
    def image_size(self) -> int:
        return self.vision.image_size


class HFVLMConfig(HFConfig):
    """A whole transformers VLM (AutoModelForImageTextToText) as backbone.

    What is null is taken from the checkpoint's processor and chat template. Pictures of any size
    are brought to image_size by the model itself, with the processor's filter.
    """

    kind: Literal["hf_vlm"] = "hf_vlm"
    image_size: int | None = positive(None, description="side of the square images it looks at")
    vocab_size: int | None = positive(None, description="null: as the checkpoint's")
    normalization: ImageNormalization | None = Field(
        None, description="of the pixels; null: as the checkpoint's processor says"
    )
    resample: Literal["bilinear", "bicubic", "lanczos"] | None = Field(
        None,
        description="filter that brings pictures to image_size; null: as the checkpoint's "
        "processor says",
    )
    marks: PromptMarks | None = Field(None, description="tokens around images and instruction")

    @model_validator(mode="after")
    def _size_without_processor(self) -> Self:
        if self.config is not None and self.image_size is None:
            raise ValueError("image_size is needed: random weights have no processor to name it")
        return self


class HFTextConfig(HFConfig):
    """A transformers text encoder with a causal mask (CLIP's): its last hidden state at the end of
    the text."""

    kind: Literal["hf_text"] = "hf_text"


TextConfig = Annotated[TransformerConfig | HFTextConfig, Field(discriminator="kind")]


class EncoderConfig(Config):
    """Encoders without a language model that speaks: what policies see through that need no VLM.

    One token says what the instruction is (`text: null`: it is not read), and each image gives its
    patches or their mean; all are brought to `dim`, and images told apart by a learned row each.
    """

    kind: Literal["encoder"] = "encoder"
    vision: VisionConfig = Field(description="the tower that reads images")
    text: TextConfig | None = Field(
        None, description="what reads the instruction; null: it is not read"
    )
    dim: int | None = positive(None, description="null: the vision tower's width")
    pool: Literal["none", "mean"] = Field(
        "none", description="none: a token per patch; mean: one per image, the mean of its patches"
    )
    images: int | None = positive(None, description="N; null: set by the stage")

    @property
    def width(self) -> int:
        return self.dim or self.vision.width

    @property
    def image_size(self) -> int:
        return self.vision.image_size


BackboneConfig = Annotated[VLMConfig | HFVLMConfig | EncoderConfig, Field(discriminator="kind")]


def offers(backbone: BackboneConfig | None) -> frozenset[Need]:
    """What an action head may read of such a backbone; null: an upstream VLM."""
    return frozenset(("features",)) if isinstance(backbone, EncoderConfig) else ALL_NEEDS


def reads_words(backbone: BackboneConfig | None) -> bool:
    """Whether an instruction changes what a policy on it sees. null: an upstream VLM."""
    return not isinstance(backbone, EncoderConfig) or backbone.text is not None


def key_value_shape(language: TransformerConfig) -> KeyValueShape:
    """Of the cache of a native decoder."""
    return KeyValueShape(
        layers=language.n_layers,
        heads=language.kv_heads,
        dim=language.key_dim,
        theta=language.rope_theta,
    )


ALL_LINEAR = "all-linear"


class LoRAConfig(Config):
    """Low-rank adapters on linears of a language or vision-language model; the rest is frozen.

    `targets`: null: all linears of the text layers. all-linear: those of the vision tower and of
    what is between them, too; never the output layer. Or names: a bare one (native: qkv, out,
    gate_up, down) is a linear of the text layers, one with a dot or a wildcard is matched with the
    dotted names of all linears, or their ends (`self_attn.*_proj`, `vision.*`).
    """

    rank: int = positive(16, description="of each adapter")
    alpha: float = Field(16.0, gt=0, description="adapters are scaled by alpha / rank")
    dropout: Annotated[float, OmitWhen(0.0)] = Field(
        0.0, ge=0, lt=1, description="of what goes into an adapter, in training"
    )
    targets: Literal["all-linear"] | tuple[str, ...] | None = Field(
        None,
        description="null: all linears of the text layers; all-linear: of the vision tower and "
        "projector, too; or names, as above; never the output layer",
    )
    whole: Annotated[tuple[str, ...], OmitWhen(())] = Field(
        (),
        description="parts of the model that are trained in full beside the adapters, by dotted "
        "names: vision, projector, language.blocks.23 ...; adapters go to none of their linears",
    )


class VLAConfig(Config):
    """Backbone, `<obs>` feature tap, action head. `backbone: null`: the upstream VLM's.

    The tap concatenates the `tap_layers` last layers' hidden states at the `<obs>` position.
    `tap_norm: final` passes EACH of them through the backbone's final norm; `none` takes each as
    it leaves its layer. Both hold alike for native and transformers backbones, whose own last
    hidden state is normed while the others are not.
    `use_images: false` is the blind control: the same model on sequences without image tokens.
    """

    kind: Literal["vla"] = "vla"
    backbone: BackboneConfig | None = Field(None, description="null: that of the model upstream")
    lora: LoRAConfig | None = Field(
        None, description="adapters on the backbone, the rest of which is frozen; null: none"
    )
    tap_layers: int = positive(
        4, description="last layers whose hidden states at `<obs>` the head is given"
    )
    tap_norm: Literal["final", "none"] = Field(
        "final",
        description="final: each through the backbone's final norm; none: as it leaves its layer",
    )
    horizon: int | None = positive(None, description="K; null: from the windows")
    action_dim: int | None = positive(None, description="A; null: from the fields")
    proprio_dim: int | None = Field(None, ge=0, description="P; null: from the fields; 0: none")
    proprio_steps: int | None = positive(None, description="S; null: from the windows")
    head: Annotated[HeadConfig, OneOf(HEADS, "kind")] = Field(
        description="what turns features into a chunk of actions"
    )
    use_images: bool = Field(
        True, description="set by train_vla's `images`: false makes sequences without image tokens"
    )
    obs_token_id: int | None = Field(None, ge=0, description="null: set by the stage")


ModelConfig = Annotated[LanguageConfig | BackboneConfig | VLAConfig, Field(discriminator="kind")]
"""Whatever can be saved as a model of its own."""


def weight_sources(model: Config | None, where: str = "model") -> dict[str, str]:
    """Dotted path in the recipe → content identity of each folder of weights.

    A hub name is identified by its commit, which is in the recipe: one without raises
    FoundryError, since the weights would change under an unchanged key.
    """
    if model is None:
        return {}
    if isinstance(model, Pretrained):
        if model.path is not None:
            return {where: fingerprint(model.path)}
        if model.source is not None:
            _check_pinned(model.source, model.revision, where)
        return {}
    parts = {name: getattr(model, name) for name in type(model).model_fields}
    return {
        found: identity
        for name, part in parts.items()
        if isinstance(part, Config)
        for found, identity in weight_sources(part, f"{where}.{name}").items()
    }


def _check_pinned(source: str, revision: str | None, where: str) -> None:
    # Transformers would load it, whatever the revision says.
    if Path(source).is_dir():
        raise FoundryError(
            f"{where}.source = {source!r} is a folder here, and a hub name elsewhere",
            f"give the folder as {where}.path",
        )
    if not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise FoundryError(
            f"{where}.source = {source!r} has revision {revision or 'null'}, which may mean other "
            "weights tomorrow: a commit hash of 40 hex digits is needed",
            f"set {where}.revision to the commit (https://huggingface.co/{source}/commits), or "
            f"{where}.source to a folder of the weights",
        )
