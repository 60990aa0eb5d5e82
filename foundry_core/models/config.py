"""Model architectures as data: torch-free, frozen, told apart by `kind`.

Legend: B batch, T sequence, D width, H heads, A action dim, P proprio dim, K horizon, S proprio
steps, N images per sample. Sizes left null are filled by a formula (resolved properties) or by the
stage that knows them (`vocab_size` from the tokenizer, `language`/`backbone` from the upstream
artifact).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foundry_core.config.canonical import Location
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import is_remote
from foundry_core.pipeline.stage import Config


def _positive(default: Any = ..., **kwargs: Any) -> Any:
    return Field(default, ge=1, **kwargs)


class TransformerConfig(Config):
    """Pre-norm decoder without biases in its linears: RoPE, SwiGLU, optional GQA and QK-norm.

    `norm: rms` gives exactly Llama (`qk_norm: false`) or Qwen3 (`qk_norm: true`).
    """

    kind: Literal["transformer"] = "transformer"
    vocab_size: int | None = _positive(None, description="null: taken from the tokenizer")
    dim: int = _positive()
    n_layers: int = _positive()
    n_heads: int = _positive()
    n_kv_heads: int | None = _positive(None, description="null: n_heads (no grouping)")
    head_dim: int | None = _positive(None, description="null: dim / n_heads")
    ffn_dim: int | None = _positive(None, description="null: 256·ceil(floor(8·dim/3)/256)")
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = Field(1e-5, gt=0)
    qk_norm: bool = False
    norm_after_embedding: bool = False
    rope_theta: float = Field(10000.0, gt=0)
    tie_embeddings: bool = False
    logit_soft_cap: float | None = Field(None, gt=0, description="cap·tanh(logits/cap)")
    context: int = _positive(2048, description="longest sequence it is trained on; for export")

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


class HFConfig(Config):
    """Base of what transformers builds: pretrained, from the hub or a folder, or random.

    After loading, `config` holds the resolved transformers config and `origin` the hub name, so
    that a saved model needs neither hub nor folder again. A folder leaves no trace there: where
    it lay must not change the bytes of what was trained on it.
    """

    kind: str
    source: str | None = Field(
        None, description="hub name; what begins with '/', '.' or '~' is taken as `path`"
    )
    revision: str | None = Field(None, description="commit of the hub; training asks for one")
    path: Location[str | None] = Field(
        None, description="folder of config.json and safetensors; identified by content"
    )
    config: dict[str, Any] | None = Field(None, description="architecture, for random weights")
    origin: str | None = None

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
    def _one_source(self) -> "HFConfig":
        given = [x for x in (self.source, self.path, self.config) if x is not None]
        if len(given) != 1:
            raise ValueError(
                "give either source (hub name), path (folder) or config (random weights)"
            )
        if self.path is not None and self.revision is not None:
            raise ValueError("revision belongs to a hub name: a folder is what it contains")
        if is_remote(self.source or self.path or ""):
            raise ValueError("weights load from the hub or a local folder: download these first")
        return self


class HFLanguageConfig(HFConfig):
    """A transformers causal LM as backbone."""

    kind: Literal["hf_causal_lm"] = "hf_causal_lm"
    vocab_size: int | None = _positive(None, description="null: as the checkpoint's")


LanguageConfig = Annotated[TransformerConfig | HFLanguageConfig, Field(discriminator="kind")]


class ImageNormalization(Config):
    """uint8 → (x/255 − mean)/std, per channel; done inside the vision module."""

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


class ViTConfig(Config):
    """Vision transformer: conv patchify with bias, learned positions, no CLS token."""

    kind: Literal["vit"] = "vit"
    image_size: int = _positive()
    patch_size: int = _positive()
    dim: int = _positive()
    n_layers: int = _positive()
    n_heads: int = _positive()
    mlp_dim: int | None = _positive(None, description="null: 4·dim")
    norm_eps: float = Field(1e-6, gt=0)
    normalization: ImageNormalization = ImageNormalization()

    @model_validator(mode="after")
    def _divisible(self) -> "ViTConfig":
        _check_multiple("image_size", self.image_size, "patch_size", self.patch_size)
        _check_multiple("dim", self.dim, "n_heads", self.n_heads)
        return self

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    @property
    def width(self) -> int:
        return self.dim


class ConvViTConfig(Config):
    """Strided convolutions (5×5, then 3×3; all stride 2; GroupNorm, SiLU) and ViT blocks.

    Learns from few images: a plain patchify of such small pictures does not. One convolution more
    than `stem_dims` has entries, the last one to `dim`: two entries make patches of 8 pixels,
    three of 16, with a quarter of the tokens in the blocks.
    """

    kind: Literal["conv_vit"] = "conv_vit"
    image_size: int = _positive()
    dim: int = _positive()
    n_layers: int = _positive()
    n_heads: int = _positive()
    mlp_dim: int | None = _positive(None, description="null: 4·dim")
    stem_dims: tuple[int, ...] = Field((32, 64), min_length=1)
    stem_groups: int = _positive(8, description="groups of GroupNorm in the stem")
    norm_eps: float = Field(1e-6, gt=0)
    normalization: ImageNormalization = ImageNormalization()

    @model_validator(mode="after")
    def _divisible(self) -> "ConvViTConfig":
        _check_multiple("image_size", self.image_size, "the stem's stride", self.stride)
        _check_multiple("dim", self.dim, "n_heads", self.n_heads)
        for width in (*self.stem_dims, self.dim):
            _check_multiple("stem width", width, "stem_groups", self.stem_groups)
        return self

    @property
    def stride(self) -> int:
        return 2 ** (len(self.stem_dims) + 1)

    @property
    def grid(self) -> int:
        return self.image_size // self.stride

    @property
    def width(self) -> int:
        return self.dim


class HFVisionConfig(HFConfig):
    """A transformers vision tower (SigLIP, DINOv2/v3, CLIP): last hidden states, CLS dropped."""

    kind: Literal["hf"] = "hf"
    image_size: int = _positive()
    patch_size: int = _positive()
    width: int = _positive(description="the tower's hidden size")
    normalization: ImageNormalization = ImageNormalization()

    @model_validator(mode="after")
    def _divisible(self) -> "HFVisionConfig":
        _check_multiple("image_size", self.image_size, "patch_size", self.patch_size)
        return self

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size


VisionConfig = Annotated[ViTConfig | ConvViTConfig | HFVisionConfig, Field(discriminator="kind")]


class ProjectorConfig(Config):
    """Pixel shuffle by `pixel_shuffle`, then linear (as published) or linear-GELU-linear."""

    kind: Literal["linear", "mlp"] = "linear"
    pixel_shuffle: int = _positive(1)
    hidden_dim: int | None = _positive(None, description="mlp only; null: the language width")
    bias: bool = False


class VLMConfig(Config):
    """Vision tower + projector + language model. `language: null`: the upstream LLM's."""

    kind: Literal["vlm"] = "vlm"
    language: LanguageConfig | None = None
    vision: VisionConfig
    projector: ProjectorConfig = ProjectorConfig()
    image_attention: Literal["causal", "bidirectional"] = "causal"
    image_token_id: int | None = Field(None, ge=0, description="null: set by the stage")

    @model_validator(mode="after")
    def _grid(self) -> "VLMConfig":
        _check_multiple(
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
    """A whole transformers VLM (AutoModelForImageTextToText) as backbone."""

    kind: Literal["hf_vlm"] = "hf_vlm"
    image_size: int = _positive(description="side of the square images it is fed")
    vocab_size: int | None = _positive(None, description="null: as the checkpoint's")
    normalization: ImageNormalization = ImageNormalization()


BackboneConfig = Annotated[VLMConfig | HFVLMConfig, Field(discriminator="kind")]


class UniformTimes(Config):
    """t ~ U[0, 1): the paper's."""

    kind: Literal["uniform"] = "uniform"


class BetaTimes(Config):
    """t ~ Beta(alpha, beta); (1, 1.5) puts more draws near the noise end t = 0."""

    kind: Literal["beta"] = "beta"
    alpha: float = Field(1.0, gt=0)
    beta: float = Field(1.5, gt=0)


class LogitNormalTimes(Config):
    """t = sigmoid(mean + std·n), n ~ N(0, 1)."""

    kind: Literal["logit_normal"] = "logit_normal"
    mean: float = 0.0
    std: float = Field(1.0, gt=0)


TimesConfig = Annotated[UniformTimes | BetaTimes | LogitNormalTimes, Field(discriminator="kind")]


class _TrunkConfig(Config):
    """What every action head's transformer shares."""

    dim: int = _positive()
    n_layers: int = _positive()
    n_heads: int = _positive()
    ffn_dim: int | None = _positive(None, description="null: 256·ceil(floor(8·dim/3)/256)")
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = Field(1e-5, gt=0)

    @model_validator(mode="after")
    def _divisible(self) -> "_TrunkConfig":
        _check_multiple("dim", self.dim, "n_heads", self.n_heads)
        return self

    @property
    def hidden_dim(self) -> int:
        return self.ffn_dim or swiglu_dim(self.dim)


class FlowHeadConfig(_TrunkConfig):
    """Flow transformer: a_t = (1−t)·z + t·a, velocity a − z, mean squared error."""

    kind: Literal["flow"] = "flow"
    time: Literal["adaln", "sum", "token"] = "sum"
    times: TimesConfig = UniformTimes()
    num_noise_samples: int = _positive(1, description="draws per observation, sharing it")
    solver: Literal["euler", "heun"] = "euler"
    steps: int = _positive(10, description="solver steps per action chunk")


class RegressionHeadConfig(_TrunkConfig):
    """Predicts the chunk in one pass: the plain baseline."""

    kind: Literal["regression"] = "regression"
    loss: Literal["squared", "absolute"] = "squared"


class DiffusionHeadConfig(_TrunkConfig):
    """Denoising diffusion on a squared-cosine schedule of `train_steps` levels, predicting noise.

    Samples with DDIM (deterministic after the first draw) or DDPM (noise at every step).
    """

    kind: Literal["diffusion"] = "diffusion"
    time: Literal["adaln", "sum", "token"] = "sum"
    train_steps: int = _positive(100, description="noise levels")
    num_noise_samples: int = _positive(1, description="draws per observation, sharing it")
    sampler: Literal["ddim", "ddpm"] = "ddim"
    steps: int = _positive(10, description="denoising steps per action chunk")
    clip: float = Field(3.0, gt=0, description="bound on predicted actions while denoising")

    @model_validator(mode="after")
    def _levels(self) -> "DiffusionHeadConfig":
        if self.steps > self.train_steps:
            raise ValueError(f"steps {self.steps} exceeds train_steps {self.train_steps}")
        return self


HeadConfig = Annotated[
    FlowHeadConfig | DiffusionHeadConfig | RegressionHeadConfig, Field(discriminator="kind")
]


class LoRAConfig(Config):
    """Low-rank adapters on the linears of the backbone's text layers; the rest of it is frozen.

    `targets`: last names of the linears (native: qkv, out, gate_up, down); null: all of them.
    """

    rank: int = _positive(16)
    alpha: float = Field(16.0, gt=0, description="adapters are scaled by alpha / rank")
    targets: tuple[str, ...] | None = None


class VLAConfig(Config):
    """Backbone, `<obs>` feature tap, action head. `backbone: null`: the upstream VLM's.

    The tap concatenates the `tap_layers` last layers' hidden states at the `<obs>` position.
    `tap_norm: final` passes EACH of them through the backbone's final norm; `none` takes each as
    it leaves its layer. Both hold alike for native and transformers backbones, whose own last
    hidden state is normed while the others are not.
    `use_images: false` is the blind control: the same model on sequences without image tokens.
    """

    kind: Literal["vla"] = "vla"
    backbone: BackboneConfig | None = None
    lora: LoRAConfig | None = None
    tap_layers: int = _positive(4)
    tap_norm: Literal["final", "none"] = "final"
    horizon: int | None = _positive(None, description="K; null: from the windows")
    action_dim: int | None = _positive(None, description="A; null: from the fields")
    proprio_dim: int | None = Field(None, ge=0, description="P; null: from the fields; 0: none")
    proprio_steps: int | None = _positive(None, description="S; null: from the windows")
    head: HeadConfig
    use_images: bool = True
    obs_token_id: int | None = Field(None, ge=0, description="null: set by the stage")


ModelConfig = Annotated[
    TransformerConfig | HFLanguageConfig | VLMConfig | HFVLMConfig | VLAConfig,
    Field(discriminator="kind"),
]


def swiglu_dim(dim: int) -> int:
    """256·ceil(floor(8·dim/3)/256): two thirds of 4·dim, rounded up to a multiple of 256."""
    return 256 * -(-(8 * dim // 3) // 256)


def resolved(config: Config, *fields: str) -> None:
    """Raises FoundryError when one of the fields a module needs is still null."""
    missing = [name for name in fields if getattr(config, name) is None]
    if missing:
        raise FoundryError(
            f"{type(config).__name__}.{missing[0]} is null: a model cannot be built without it",
            "the training stage fills it in; give it explicitly when building by hand",
        )


def differences(left: Config, right: Config, ignore: tuple[str, ...] = ()) -> list[str]:
    """Human-readable `field: left ≠ right` lines of two configs of models; where their weights
    lay is no difference."""
    a, b = left.model_dump(mode="json"), right.model_dump(mode="json")
    names = [name for name in {**a, **b} if name not in (*ignore, "path")]
    return [f"{n}: {a.get(n)!r} ≠ {b.get(n)!r}" for n in names if a.get(n) != b.get(n)]


def _check_multiple(name: str, value: int, of_name: str, of: int) -> None:
    if value % of:
        raise ValueError(f"{name} {value} is not a multiple of {of_name} {of}")
