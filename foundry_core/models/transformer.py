"""The language model: h = x + Wo·Attn(N1 x), y = h + FFN(N2 h), no biases, RoPE, SwiGLU."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foundry_core.errors import FoundryError
from foundry_core.models.config.language import TransformerConfig
from foundry_core.models.config.sizes import required
from foundry_core.models.cross_entropy import linear_cross_entropy
from foundry_core.models.interfaces import LanguageModel
from foundry_core.models.layers import (
    Attention,
    AttentionMask,
    Layers,
    SwiGLU,
    attention_mask,
    init_block,
    make_norm,
    rope_table,
    take_rows,
    truncated_normal_,
)


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
        )
        self.ffn_norm = make_norm(config.norm, config.dim, config.norm_eps)
        self.ffn = SwiGLU(config.dim, config.hidden_dim)

    def forward(
        self,
        x_btd: Tensor,
        mask: AttentionMask | None,
        rope: tuple[Tensor, Tensor],
        rows: Tensor | None = None,
    ) -> Tensor:
        """[B,T,D], or with rows int64 [B] the output at these positions alone, [B,1,D]."""
        y = self.attention(self.attention_norm(x_btd), mask=mask, causal=True, rope=rope, rows=rows)
        x_btd = y + (x_btd if rows is None else take_rows(x_btd, rows))
        return x_btd + self.ffn(self.ffn_norm(x_btd))


class Transformer(LanguageModel):
    """Decoder language model.

    `activation_checkpointing` (a resource, not part of the config) recomputes each block in the
    backward pass: a third more compute for memory that grows with one block only.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        vocab_size = required(config, "vocab_size", config.vocab_size)
        self._config = config
        self.activation_checkpointing = False
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
    def text_layers(self) -> nn.ModuleList:
        return self.blocks

    def embed(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens)

    def forward(
        self,
        tokens: Tensor | None = None,
        *,
        embeddings: Tensor | None = None,
        segments: Tensor | None = None,
        attention_mask: Tensor | None = None,
        bidirectional_spans: Tensor | None = None,
        return_hidden: bool = False,
    ) -> Tensor:
        """Logits [B,T,V], or with `return_hidden` the final-normed hidden states [B,T,D].

        Exactly one of tokens [B,T] and embeddings [B,T,D]. segments: document ids of packed rows,
        no attention across them. attention_mask bool [B,T]: False keys (padding) are seen by
        nobody; with padding on the right, causality alone already hides it, so leave it out.
        bidirectional_spans int [B,T]: equal ids > 0 attend both ways.
        """
        *_, last = self._layers(tokens, embeddings, segments, attention_mask, bidirectional_spans)
        hidden = self.norm(last)
        return hidden if return_hidden else self.logits(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        weight = self.embedding.weight if self.head is None else self.head.weight
        logits = nn.functional.linear(hidden, weight)
        cap = self._config.logit_soft_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def next_token_sums(
        self, hidden: Tensor, targets: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        weight = self.embedding.weight if self.head is None else self.head.weight
        return linear_cross_entropy(
            hidden, weight, targets, z_loss=z_loss, soft_cap=self._config.logit_soft_cap
        )

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
        check_tap(layers, self.n_layers)
        # Nobody reads the last layer anywhere else: its feed-forward runs at one position.
        outputs = self._layers(
            None, embeddings, None, attention_mask, bidirectional_spans, last_rows=positions
        )
        taps = [
            hidden if layer == self.n_layers - 1 else take_rows(hidden, positions)
            for layer, hidden in enumerate(outputs)
            if layer >= self.n_layers - layers
        ]
        tapped = torch.stack(taps, dim=2)
        if norm == "final":
            tapped = self.norm(tapped)
        return tapped.flatten(2)

    def _layers(
        self,
        tokens: Tensor | None,
        embeddings: Tensor | None,
        segments: Tensor | None,
        keys: Tensor | None,
        spans: Tensor | None,
        last_rows: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Yields each block's output [B,T,D] in order; the last one's at `last_rows` alone."""
        x = one_input(self.embed, tokens, embeddings)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        length = x.shape[1]
        mask = attention_mask(
            length, x.device, segments=segments, keys=keys, bidirectional_spans=spans
        )
        rope = rope_table(length, self._config.key_dim, self._config.rope_theta, x.device)
        for block in self.blocks:
            rows = last_rows if block is self.blocks[-1] else None
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, mask, rope, rows, use_reentrant=False)
            else:
                x = block(x, mask, rope, rows)
            yield x

    def resize_vocabulary(self, vocab_size: int, used: int | None = None) -> None:
        """Grows embedding and head to `vocab_size` rows; see resize_rows."""
        resize_rows(self.embedding, vocab_size, used)
        self.embedding.num_embeddings = self.embedding.weight.shape[0]
        if self.head is not None:
            resize_rows(self.head, vocab_size, used)
            self.head.out_features = self.head.weight.shape[0]


def one_input(
    embed: Callable[[Tensor], Tensor], tokens: Tensor | None, embeddings: Tensor | None
) -> Tensor:
    """[B,T,D] of whichever is given. FoundryError unless exactly one is."""
    if tokens is not None and embeddings is None:
        return embed(tokens)
    if embeddings is not None and tokens is None:
        return embeddings
    raise FoundryError("give exactly one of tokens and embeddings to the transformer")


def check_tap(layers: int, available: int) -> None:
    """FoundryError when a tap wants more layers than there are."""
    if layers > available:
        raise FoundryError(
            f"tap_layers is {layers}, but the backbone has {available} layers",
            f"set tap_layers to at most {available}",
        )


@torch.no_grad()
def resize_rows(module: nn.Embedding | nn.Linear, rows: int, used: int | None = None) -> None:
    """Rows `used` (default: all that exist) to `rows` of module.weight become the mean of the rows
    before them. Never shrinks: rows beyond the tokenizer's size are padding of the table."""
    old = module.weight
    used = min(used or old.shape[0], old.shape[0])
    new = old if rows <= old.shape[0] else torch.cat((old, old[:1].expand(rows - len(old), -1)))
    new = new.clone()
    new[used:rows] = old[:used].mean(dim=0)
    module.weight = nn.Parameter(new, requires_grad=old.requires_grad)
