"""Transformers language models, and the text stack of transformers VLMs, as native decoders."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from foundry_core.errors import FoundryError
from foundry_core.models.config import HFLanguageConfig, HFVLMConfig
from foundry_core.models.heads.base import KeyValueShape
from foundry_core.models.huggingface.cache import HFKeyValues
from foundry_core.models.huggingface.load import load_or_build, resolve
from foundry_core.models.interfaces import Decoder, LanguageModel, Tap, check_tap, fill_new_rows
from foundry_core.models.kv_cache import KeyValues
from foundry_core.models.layers import AttentionMask, Visibility

_FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f")


class HFDecoder(Decoder):
    """Over `model`, a transformers model whose text stack is `text`."""

    # Any: transformers' models and text stacks share no class that declares these parts.
    model: Any

    def __init__(self, auto_class: Any, config: HFLanguageConfig | HFVLMConfig) -> None:
        super().__init__()
        self.model = load_or_build(auto_class, config)
        self.settings = self.model.config.get_text_config()
        for scale in ("logits_scaling", "logit_scale"):
            if getattr(self.settings, scale, None) not in (None, 1, 1.0):
                raise FoundryError(
                    f"{self.settings.model_type} scales its logits ({scale}), which is unsupported"
                )
        if config.vocab_size is not None:
            self.resize_vocabulary(config.vocab_size, self.vocab_size)

    @property
    def text(self) -> Any:
        """Layers and final norm. A property: its parameters must not be registered twice."""
        return self.model.get_decoder()

    @property
    def dim(self) -> int:
        return self.settings.hidden_size

    @property
    def key_values(self) -> KeyValueShape:
        settings = self.settings
        heads = settings.num_attention_heads
        rope = getattr(settings, "rope_parameters", None) or {}
        return KeyValueShape(
            layers=self.n_layers,
            heads=getattr(settings, "num_key_value_heads", None) or heads,
            dim=getattr(settings, "head_dim", None) or settings.hidden_size // heads,
            theta=rope.get("rope_theta", 10000.0),
        )

    @property
    def text_layers(self) -> nn.ModuleList:
        return self.text.layers

    @property
    def vocab_size(self) -> int:
        return self.model.get_input_embeddings().weight.shape[0]

    @property
    def output_layer(self) -> tuple[Tensor, Tensor | None, float | None]:
        head = self.model.get_output_embeddings()
        cap = getattr(self.settings, "final_logit_softcapping", None)
        return head.weight, getattr(head, "bias", None), cap

    def embed(self, tokens: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(tokens)

    @property
    def context(self) -> int | None:
        return getattr(self.settings, "max_position_embeddings", None)

    def decode(self, embeddings: Tensor, visible: Visibility) -> Tensor:
        """As LanguageModel.hidden."""
        seen = self._seen(embeddings, visible)
        output = self.text(inputs_embeds=embeddings, attention_mask=seen, use_cache=False)
        return output.last_hidden_state

    def _seen(self, embeddings: Tensor, visible: Visibility, room: int = 0) -> Tensor | None:
        """Transformers' attention mask; room: slots after the rows that are still empty."""
        if visible.segments is None and visible.spans is None:
            return visible.keys
        mask = visible.mask(embeddings.shape[1], embeddings.device)
        window = getattr(self.settings, "sliding_window", None)
        if window is not None and embeddings.shape[1] > window:
            raise FoundryError(
                f"{self.settings.model_type} attends within {window} tokens in some layers, "
                f"rows of several documents have {embeddings.shape[1]}",
                f"convert the text with a context of at most {window}",
            )
        if mask is None:
            return visible.keys
        if room:
            mask = AttentionMask(nn.functional.pad(mask.allowed, (0, room)), causal=mask.causal)
        # Eager attention adds its mask to the scores; the fused kernels take booleans.
        eager = self.text.config._attn_implementation == "eager"
        return mask.bias(embeddings.dtype) if eager else mask.allowed

    def prefill_embeddings(
        self, embeddings: Tensor, lengths: Tensor, room: int, visible: Visibility = Visibility()
    ) -> tuple[Tensor, KeyValues]:
        """As LanguageModel's."""
        length = embeddings.shape[1]
        cache = HFKeyValues(self.settings, lengths, length, room)
        filled = cache.mask[:, :length]
        spans = None if visible.spans is None else cache.shift.left(visible.spans)
        embeddings = cache.shift.left(embeddings)
        output = self.text(
            inputs_embeds=embeddings,
            attention_mask=self._seen(embeddings, Visibility(keys=filled, spans=spans), room),
            position_ids=positions_of(filled),
            past_key_values=cache.cache,
            use_cache=True,
        )
        cache.next_positions = lengths.clone()
        return output.last_hidden_state[:, -1], cache

    def step(self, tokens: Tensor, cache: KeyValues) -> Tensor:
        """As Decoder's; images are behind it."""
        assert isinstance(cache, HFKeyValues)
        cache.take_room()
        positions = cache.next_positions
        if self.context is not None:
            # Rows that have ended go along: past the context a learned position does not exist.
            positions = positions.clamp(max=self.context - 1)
        output = self.text(
            inputs_embeds=self.embed(tokens)[:, None],
            attention_mask=cache.mask,
            position_ids=positions[:, None],
            past_key_values=cache.cache,
            use_cache=True,
        )
        cache.next_positions = cache.next_positions + 1
        return output.last_hidden_state[:, 0]

    def tap_during(self, run: Callable[[], Any], tap: Tap) -> Tensor:
        """What run() makes of the tapped layers: [B, 1, layers·D].

        Hooks on the layers, because transformers' own hidden_states norm the last entry only.
        """
        check_tap(tap.layers, self.n_layers)
        index = tap.positions[:, None, None].expand(-1, 1, self.dim)
        taps: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            taps.append(hidden.gather(1, index))

        handles = [layer.register_forward_hook(keep) for layer in self.text.layers[-tap.layers :]]
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()
        return tap.join(taps, self._norm)

    def _norm(self, hidden: Tensor) -> Tensor:
        for name in _FINAL_NORMS:
            if hasattr(self.text, name):
                return getattr(self.text, name)(hidden)
        raise FoundryError(
            f"{self.settings.model_type}: no final norm found", "set tap_norm to 'none'"
        )

    @torch.no_grad()
    def resize_vocabulary(self, vocab_size: int, used: int) -> None:
        """Tied heads stay tied."""
        rows = self.vocab_size
        if vocab_size > rows:
            self.model.resize_token_embeddings(vocab_size, mean_resizing=False)
        weights = [
            part.weight
            for part in (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        ]
        for weight in {id(one): one for one in weights}.values():
            fill_new_rows(weight, vocab_size, used, rows)


def positions_of(filled: Tensor) -> Tensor:
    """int64 [B,T] of rows whose padding bool [B,T] False counts for nothing."""
    return (filled.long().cumsum(dim=1) - 1).clamp_(min=0)


class HFLanguage(HFDecoder, LanguageModel):
    """AutoModelForCausalLM as the language part of a VLM, or on its own."""

    def __init__(self, config: HFLanguageConfig) -> None:
        super().__init__(AutoModelForCausalLM, config)
        self._config = config

    @property
    def config(self) -> HFLanguageConfig:
        return resolve(self._config, self.model, vocab_size=self.vocab_size)

    def hidden(self, embeddings: Tensor, visible: Visibility = Visibility()) -> Tensor:
        return self.decode(embeddings, visible)

    def tap(self, embeddings: Tensor, tap: Tap, visible: Visibility = Visibility()) -> Tensor:
        return self.tap_during(lambda: self.decode(embeddings, visible), tap)
