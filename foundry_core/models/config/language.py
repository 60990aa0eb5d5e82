"""Language models.

Legend: H heads, D width, V vocabulary.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foundry_core.models.config.huggingface import HFConfig
from foundry_core.models.config.sizes import positive, swiglu_dim
from foundry_core.pipeline.stage import Config


class TransformerConfig(Config):
    """Pre-norm decoder without biases in its linears: RoPE, SwiGLU, optional GQA and QK-norm.

    `norm: rms` gives exactly Llama (`qk_norm: false`) or Qwen3 (`qk_norm: true`).
    """

    kind: Literal["transformer"] = "transformer"
    vocab_size: int | None = positive(None, description="null: taken from the tokenizer")
    dim: int = positive()
    n_layers: int = positive()
    n_heads: int = positive()
    n_kv_heads: int | None = positive(None, description="null: n_heads (no grouping)")
    head_dim: int | None = positive(None, description="null: dim / n_heads")
    ffn_dim: int | None = positive(None, description="null: 256·ceil(floor(8·dim/3)/256)")
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = Field(1e-5, gt=0)
    qk_norm: bool = False
    norm_after_embedding: bool = False
    rope_theta: float = Field(10000.0, gt=0)
    tie_embeddings: bool = False
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


LanguageConfig = Annotated[TransformerConfig | HFLanguageConfig, Field(discriminator="kind")]
