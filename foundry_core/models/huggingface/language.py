"""Transformers language models behind the native transformer's interface."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from foundry_core.models.config.language import HFLanguageConfig
from foundry_core.models.huggingface.decoder import HFDecoder
from foundry_core.models.huggingface.load import load_or_build, resolve
from foundry_core.models.interfaces import LanguageModel


class HFLanguage(LanguageModel):
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
        self,
        embeddings: Tensor,
        positions: Tensor,
        *,
        layers: int,
        norm: str,
        attention_mask: Tensor | None = None,
        bidirectional_spans: Tensor | None = None,
    ) -> Tensor:
        def run() -> None:
            self._decoder(
                embeddings=embeddings,
                attention_mask=attention_mask,
                bidirectional_spans=bidirectional_spans,
                return_hidden=True,
            )

        return self._decoder.tap(run, positions, layers=layers, norm=norm)

    def resize_vocabulary(self, vocab_size: int, used: int | None = None) -> None:
        self._decoder.resize_vocabulary(vocab_size, used)
