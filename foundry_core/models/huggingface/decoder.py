"""The text stack of a transformers model behind the native decoder's interface."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from foundry_core.errors import FoundryError
from foundry_core.models import layers as native
from foundry_core.models.cross_entropy import linear_cross_entropy
from foundry_core.models.transformer import check_tap, one_input

_FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f")


class HFDecoder:
    """The text stack of a transformers model: embeddings, layers, final norm, head.

    No module itself: it only looks into one, whose parameters it must not register twice.
    """

    def __init__(self, model: Any, text: Any) -> None:
        # Any: transformers' models and text stacks share no class that declares these parts.
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
        embeddings = one_input(self.embed, tokens, embeddings)
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
            if mask is not None:
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
