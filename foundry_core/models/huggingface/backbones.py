"""Transformers language models and vision towers behind the native modules' interface."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

from foundry_core.errors import FoundryError
from foundry_core.models import layers as native
from foundry_core.models.config import HFLanguageConfig, HFVisionConfig
from foundry_core.models.cross_entropy import linear_cross_entropy
from foundry_core.models.huggingface.load import load_or_build, resolve
from foundry_core.models.transformer import check_tap
from foundry_core.models.vision import normalize_images

_FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f")


class HFDecoder:
    """The text stack of a transformers model: embeddings, layers, final norm, head.

    No module itself: it only looks into one, whose parameters it must not register twice.
    """

    def __init__(self, model: nn.Module, text: nn.Module) -> None:
        self.model, self.text = model, text
        self.settings = model.config.get_text_config()
        for scale in ("logits_scaling", "logit_scale"):
            if getattr(self.settings, scale, None) not in (None, 1, 1.0):
                raise FoundryError(
                    f"{self.settings.model_type} scales its logits ({scale}), which is unsupported"
                )

    @property
    def dim(self) -> int:
        return self.settings.hidden_size

    @property
    def n_layers(self) -> int:
        return len(self.text.layers)

    @property
    def vocab_size(self) -> int:
        return self.model.get_input_embeddings().weight.shape[0]

    def embed(self, tokens: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(tokens)

    def __call__(
        self,
        tokens: Tensor | None = None,
        *,
        embeddings: Tensor | None = None,
        segments: Tensor | None = None,
        attention_mask: Tensor | None = None,
        bidirectional_spans: Tensor | None = None,
        return_hidden: bool = False,
    ) -> Tensor:
        """As Transformer.forward."""
        if (tokens is None) == (embeddings is None):
            raise FoundryError("give exactly one of tokens and embeddings to the transformer")
        embeddings = self.embed(tokens) if embeddings is None else embeddings
        if segments is not None or bidirectional_spans is not None:
            mask = native.attention_mask(
                embeddings.shape[1],
                embeddings.device,
                segments=segments,
                keys=attention_mask,
                bidirectional_spans=bidirectional_spans,
            )
            # Eager attention adds its mask to the scores; the fused kernels take booleans.
            eager = self.text.config._attn_implementation == "eager"
            attention_mask = mask.bias(embeddings.dtype) if eager else mask.allowed
        output = self.text(inputs_embeds=embeddings, attention_mask=attention_mask, use_cache=False)
        hidden = output.last_hidden_state
        return hidden if return_hidden else self.logits(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        logits = self.model.get_output_embeddings()(hidden)
        cap = self._soft_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def next_token_sums(
        self, hidden: Tensor, targets: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """As Transformer.next_token_sums."""
        head = self.model.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            raise FoundryError(f"{self.settings.model_type}'s output layer has a bias: unsupported")
        return linear_cross_entropy(
            hidden, head.weight, targets, z_loss=z_loss, soft_cap=self._soft_cap
        )

    @property
    def _soft_cap(self) -> float | None:
        return getattr(self.settings, "final_logit_softcapping", None)

    def tap(self, run: Callable[[], Any], positions: Tensor, *, layers: int, norm: str) -> Tensor:
        """Last layers' outputs at positions [B] during run(): [B, 1, layers·D].

        Hooks on the layers, because transformers' own hidden_states norm the last entry only.
        """
        check_tap(layers, self.n_layers)
        index = positions[:, None, None].expand(-1, 1, self.dim)
        taps: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            taps.append(hidden.gather(1, index))

        handles = [layer.register_forward_hook(keep) for layer in self.text.layers[-layers:]]
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()
        tapped = torch.stack(taps, dim=2)
        return (self._norm(tapped) if norm == "final" else tapped).flatten(2)

    def _norm(self, hidden: Tensor) -> Tensor:
        for name in _FINAL_NORMS:
            if hasattr(self.text, name):
                return getattr(self.text, name)(hidden)
        raise FoundryError(
            f"{self.settings.model_type}: no final norm found", "set tap_norm to 'none'"
        )

    @torch.no_grad()
    def resize_vocabulary(self, vocab_size: int, used: int | None = None) -> None:
        """See resize_rows; tied heads stay tied."""
        rows = self.vocab_size
        used = min(used or rows, rows)
        if vocab_size > rows:
            self.model.resize_token_embeddings(vocab_size, mean_resizing=False)
        for part in (self.model.get_input_embeddings(), self.model.get_output_embeddings()):
            weight = part.weight
            weight[used:vocab_size] = weight[:used].mean(dim=0)


class HFLanguage(nn.Module):
    """AutoModelForCausalLM as the language part of a VLM, or on its own."""

    def __init__(self, config: HFLanguageConfig) -> None:
        super().__init__()
        self.model = load_or_build(AutoModelForCausalLM, config)
        self._decoder = HFDecoder(self.model, self.model.get_decoder())
        self._config = config
        if config.vocab_size is not None:
            self.resize_vocabulary(config.vocab_size)

    @property
    def config(self) -> HFLanguageConfig:
        return resolve(self._config, self.model, vocab_size=self.vocab_size)

    @property
    def dim(self) -> int:
        return self._decoder.dim

    @property
    def text_layers(self) -> nn.ModuleList:
        return self._decoder.text.layers

    @property
    def n_layers(self) -> int:
        return self._decoder.n_layers

    @property
    def vocab_size(self) -> int:
        return self._decoder.vocab_size

    def embed(self, tokens: Tensor) -> Tensor:
        return self._decoder.embed(tokens)

    def forward(self, tokens: Tensor | None = None, **kwargs: Any) -> Tensor:
        """As Transformer.forward."""
        return self._decoder(tokens, **kwargs)

    def logits(self, hidden: Tensor) -> Tensor:
        return self._decoder.logits(hidden)

    def next_token_sums(
        self, hidden: Tensor, targets: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        return self._decoder.next_token_sums(hidden, targets, z_loss)

    def tap(
        self, embeddings: Tensor, positions: Tensor, *, layers: int, norm: str, **masks: Any
    ) -> Tensor:
        """As Transformer.tap."""

        def run() -> None:
            self._decoder(embeddings=embeddings, return_hidden=True, **masks)

        return self._decoder.tap(run, positions, layers=layers, norm=norm)

    def resize_vocabulary(self, vocab_size: int, used: int | None = None) -> None:
        self._decoder.resize_vocabulary(vocab_size, used)


class HFVision(nn.Module):
    """The patch tokens of a transformers vision tower (class and register tokens dropped)."""

    def __init__(self, config: HFVisionConfig) -> None:
        super().__init__()
        tower = load_or_build(AutoModel, config)
        self.tower = getattr(tower, "vision_model", tower)
        self._config = config
        settings = self.tower.config
        if settings.hidden_size != config.width:
            raise FoundryError(
                f"vision.width is {config.width}, the tower's hidden size {settings.hidden_size}",
                f"set vision.width to {settings.hidden_size}",
            )
        self._options: dict[str, bool] = {}
        accepted = inspect.signature(self.tower.forward).parameters
        if config.image_size != settings.image_size and "interpolate_pos_encoding" in accepted:
            self._options["interpolate_pos_encoding"] = True

    @property
    def config(self) -> HFVisionConfig:
        return resolve(self._config, self.tower)

    @property
    def width(self) -> int:
        return self._config.width

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [n,3,H,W] → [n, patches, D]."""
        pixels = normalize_images(images, self._config.normalization)
        tokens = self.tower(pixel_values=pixels, **self._options).last_hidden_state
        patches = self._config.grid**2
        if tokens.shape[1] < patches:
            raise FoundryError(
                f"the vision tower made {tokens.shape[1]} tokens of a {self._config.image_size} px "
                f"image, expected {patches} patches of {self._config.patch_size} px"
            )
        return tokens[:, -patches:]
