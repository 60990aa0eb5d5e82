"""The language model: h = x + Wo·Attn(N1 x), y = h + FFN(N2 h), no biases, RoPE, SwiGLU."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from foundry_core.models.config import TransformerConfig, key_value_shape
from foundry_core.models.heads.base import KeyValueShape
from foundry_core.models.interfaces import LanguageModel, Tap, check_tap, fill_new_rows
from foundry_core.models.kv_cache import KeyValues, StaticKeyValues
from foundry_core.models.layers import (
    Attention,
    Layers,
    LookUp,
    Mask,
    SwiGLU,
    Visibility,
    compute_type,
    init_block,
    make_norm,
    rope_table,
    take_rows,
    truncated_normal_,
)
from foundry_core.models.sizes import required


class Block(nn.Module):
    """Pre-norm attention and gated feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config.norm, config.dim, config.norm_eps)
        self.attention = Attention(
            config.dim,
            config.n_heads,
            n_kv_heads=config.kv_heads,
            head_dim=config.key_dim,
            qk_norm=config.norm if config.qk_norm else None,
            norm_eps=config.norm_eps,
            qkv_bias=config.qkv_bias,
        )
        self.ffn_norm = make_norm(config.norm, config.dim, config.norm_eps)
        self.ffn = SwiGLU(config.dim, config.hidden_dim)

    def forward(
        self,
        x_btd: Tensor,
        mask: Mask,
        rope: tuple[Tensor, Tensor],
        rows: Tensor | None = None,
        look: LookUp | None = None,
    ) -> Tensor:
        """[B,T,D], or with rows int64 [B] the output at these positions alone, [B,1,D]."""
        y = self.attention(
            self.attention_norm(x_btd), mask=mask, causal=True, rope=rope, rows=rows, look=look
        )
        x_btd = y + (x_btd if rows is None else take_rows(x_btd, rows))
        return x_btd + self.ffn(self.ffn_norm(x_btd))


class Transformer(LanguageModel):
    """Decoder language model."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        vocab_size = required(config, "vocab_size", config.vocab_size)
        self._config = config
        self.embedding = nn.Embedding(vocab_size, config.dim)
        self.embedding_norm = (
            make_norm(config.norm, config.dim, config.norm_eps)
            if config.norm_after_embedding
            else None
        )
        self.blocks = Layers(Block(config) for _ in range(config.n_layers))
        self.norm = make_norm(config.norm, config.dim, config.norm_eps)
        # A tied head owns no parameter: nothing can untie it, nothing is saved twice.
        self.head = None if config.tie_embeddings else nn.Linear(config.dim, vocab_size, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        std = self._config.dim**-0.5
        truncated_normal_(self.embedding.weight, std)
        if self.head is not None:
            truncated_normal_(self.head.weight, std)
        for layer, block in enumerate(self.blocks):
            init_block(block.attention, block.ffn, self._config.dim, layer)

    @property
    def config(self) -> TransformerConfig:
        return self._config.model_copy(update={"vocab_size": self.vocab_size})

    @property
    def dim(self) -> int:
        return self._config.dim

    @property
    def vocab_size(self) -> int:
        return self.embedding.weight.shape[0]

    @property
    def key_values(self) -> KeyValueShape:
        return key_value_shape(self._config)

    @property
    def text_layers(self) -> nn.ModuleList:
        return self.blocks

    def embed(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens)

    @property
    def output_layer(self) -> tuple[Tensor, None, float | None]:
        head = self.embedding if self.head is None else self.head
        return head.weight, None, self._config.logit_soft_cap

    def hidden(self, embeddings: Tensor, visible: Visibility = Visibility()) -> Tensor:
        *_, last = self._layers(embeddings, visible)
        return self.norm(last)

    def tap(self, embeddings: Tensor, tap: Tap, visible: Visibility = Visibility()) -> Tensor:
        check_tap(tap.layers, self.n_layers)
        # Nobody reads the last layer anywhere else: its feed-forward runs at one position.
        outputs = enumerate(self._layers(embeddings, visible, last_rows=tap.positions))
        first, last = self.n_layers - tap.layers, self.n_layers - 1
        # Taken as each layer ends: the order in which gradients add up is the order of the graph.
        taps = [
            x if layer == last else take_rows(x, tap.positions)
            for layer, x in outputs
            if layer >= first
        ]
        return tap.join(taps, self.norm)

    @property
    def context(self) -> int:
        return self._config.context

    def prefill_embeddings(
        self, embeddings: Tensor, lengths: Tensor, room: int, visible: Visibility = Visibility()
    ) -> tuple[Tensor, KeyValues]:
        cache = StaticKeyValues(self.n_layers, lengths, embeddings.shape[1], room)
        *_, last = self._layers(embeddings, visible, last_rows=lengths - 1, looks=cache.prefill)
        return self.norm(last)[:, 0], cache

    def step(self, tokens: Tensor, cache: KeyValues) -> Tensor:
        assert isinstance(cache, StaticKeyValues)
        step = cache.step()
        x = self.embedding(tokens)[:, None]
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        cos, sin = self._rope(cache.slots, x.device)
        rope = cos[step.positions][:, None], sin[step.positions][:, None]
        for block, look in zip(self.blocks, step.looks, strict=True):
            x = block(x, step.mask, rope, look=look)
        return self.norm(x)[:, 0]

    def _layers(
        self,
        x: Tensor,
        visible: Visibility,
        last_rows: Tensor | None = None,
        looks: Sequence[LookUp] | None = None,
    ) -> Iterator[Tensor]:
        """Yields each block's output [B,T,D] in order; the last one's at `last_rows` alone. looks:
        a look-up for each."""
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = x.to(compute_type(x))
        length = x.shape[1]
        mask = visible.look(length, x.device)
        rope = self._rope(length, x.device)
        for layer, block in enumerate(self.blocks):
            rows = last_rows if block is self.blocks[-1] else None
            x = block(x, mask, rope, rows, looks[layer] if looks else None)
            yield x

    def _rope(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        return rope_table(length, self._config.key_dim, self._config.rope_theta, device)

    def resize_vocabulary(self, vocab_size: int, used: int) -> None:
        resize_rows(self.embedding, vocab_size, used)
        self.embedding.num_embeddings = self.embedding.weight.shape[0]
        if self.head is not None:
            resize_rows(self.head, vocab_size, used)
            self.head.out_features = self.head.weight.shape[0]


@torch.no_grad()
def resize_rows(module: nn.Embedding | nn.Linear, rows: int, used: int) -> None:
    """Of module.weight; as Decoder.resize_vocabulary."""
    old = module.weight
    if rows > len(old):
        grown = torch.cat((old, old.new_empty(rows - len(old), old.shape[1])))
        module.weight = nn.Parameter(grown, requires_grad=old.requires_grad)
    fill_new_rows(module.weight, rows, used, len(old))
