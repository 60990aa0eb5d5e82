"""Policies: backbone, feature tap, action head.

Legend: K horizon, A action dim, P proprio dim, S proprio steps.
"""

from typing import Annotated, Literal

from pydantic import Field

from foundry_core.config.registry import OneOf
from foundry_core.models.config.sizes import positive
from foundry_core.models.config.vlm import BackboneConfig
from foundry_core.models.heads import HEADS
from foundry_core.models.heads.base import HeadConfig
from foundry_core.pipeline.stage import Config


class LoRAConfig(Config):
    """Low-rank adapters on the linears of the backbone's text layers; the rest of it is frozen.

    `targets`: last names of the linears (native: qkv, out, gate_up, down); null: all of them.
    """

    rank: int = positive(16)
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
    tap_layers: int = positive(4)
    tap_norm: Literal["final", "none"] = "final"
    horizon: int | None = positive(None, description="K; null: from the windows")
    action_dim: int | None = positive(None, description="A; null: from the fields")
    proprio_dim: int | None = Field(None, ge=0, description="P; null: from the fields; 0: none")
    proprio_steps: int | None = positive(None, description="S; null: from the windows")
    head: Annotated[HeadConfig, OneOf(HEADS, "kind")]
    use_images: bool = True
    obs_token_id: int | None = Field(None, ge=0, description="null: set by the stage")
