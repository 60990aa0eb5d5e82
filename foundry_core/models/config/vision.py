"""Vision towers, and the projector into a language model's width."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foundry_core.models.config.huggingface import HFConfig
from foundry_core.models.config.sizes import check_multiple, positive
from foundry_core.pipeline.stage import Config


class ImageNormalization(Config):
    """uint8 → (x/255 − mean)/std, per channel; done inside the vision module."""

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


class ViTConfig(Config):
    """Vision transformer: conv patchify with bias, learned positions, no CLS token."""

    kind: Literal["vit"] = "vit"
    image_size: int = positive()
    patch_size: int = positive()
    dim: int = positive()
    n_layers: int = positive()
    n_heads: int = positive()
    mlp_dim: int | None = positive(None, description="null: 4·dim")
    norm_eps: float = Field(1e-6, gt=0)
    normalization: ImageNormalization = ImageNormalization()

    @model_validator(mode="after")
    def _divisible(self) -> "ViTConfig":
        check_multiple("image_size", self.image_size, "patch_size", self.patch_size)
        check_multiple("dim", self.dim, "n_heads", self.n_heads)
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
    image_size: int = positive()
    dim: int = positive()
    n_layers: int = positive()
    n_heads: int = positive()
    mlp_dim: int | None = positive(None, description="null: 4·dim")
    stem_dims: tuple[int, ...] = Field((32, 64), min_length=1)
    stem_groups: int = positive(8, description="groups of GroupNorm in the stem")
    norm_eps: float = Field(1e-6, gt=0)
    normalization: ImageNormalization = ImageNormalization()

    @model_validator(mode="after")
    def _divisible(self) -> "ConvViTConfig":
        check_multiple("image_size", self.image_size, "the stem's stride", self.stride)
        check_multiple("dim", self.dim, "n_heads", self.n_heads)
        for width in (*self.stem_dims, self.dim):
            check_multiple("stem width", width, "stem_groups", self.stem_groups)
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
    image_size: int = positive()
    patch_size: int = positive()
    width: int = positive(description="the tower's hidden size")
    normalization: ImageNormalization = ImageNormalization()

    @model_validator(mode="after")
    def _divisible(self) -> "HFVisionConfig":
        check_multiple("image_size", self.image_size, "patch_size", self.patch_size)
        return self

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size


VisionConfig = Annotated[ViTConfig | ConvViTConfig | HFVisionConfig, Field(discriminator="kind")]


class ProjectorConfig(Config):
    """Pixel shuffle by `pixel_shuffle`, then linear (as published) or linear-GELU-linear."""

    kind: Literal["linear", "mlp"] = "linear"
    pixel_shuffle: int = positive(1)
    hidden_dim: int | None = positive(None, description="mlp only; null: the language width")
    bias: bool = False
