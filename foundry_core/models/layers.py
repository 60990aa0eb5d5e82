"""Building blocks: norms, rotary positions, attention, gated feed-forward, initialisation.

Legend: b batch, t/s query/key position, h heads, d head dim.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundry_core.models.elementwise import GatedUnit, RootMeanSquare, Rotate
from foundry_core.models.plain_attention import plain_attention
from foundry_core.models.products import Linear

PLAIN_ATTENTION_LIMIT = 512
"""Longest CPU sequence for plain products, forward and backward against torch's fused attention:
0.9 of its time in float32 and 0.3 in bfloat16 at 128 positions, 0.6 and 0.4 at 512. Their weights
are kept for the backward pass, which grows with the square of the length."""

_SHORT = 64
"""Positions whose scores are one block, so that nothing is left out."""
_OFFSETS_MULTIPLE = 64


M = TypeVar("M", bound=nn.Module)


class Layers(nn.ModuleList, Generic[M]):
    """torch's list of modules, which knows their type."""

    def __init__(self, modules: Iterable[M]) -> None:
        super().__init__(modules)

    def __iter__(self) -> Iterator[M]:
        return cast(Iterator[M], super().__iter__())


def compute_type(x: Tensor) -> torch.dtype:
    """Autocast's where it is on for x's device, else x's own: what the residual stream is kept in.
    Norms take their statistics in float32 all the same."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):  # which torch refuses to answer for
        return x.dtype
    return torch.get_autocast_dtype(kind)


def trains_on_cpu(x: Tensor) -> bool:
    """Whether operators with a backward pass of their own pay: a single chunk of actions is so
    small that they cost a quarter more, and a compiler fuses plain chains itself."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight, computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if trains_on_cpu(x):
            y: Tensor = RootMeanSquare.apply(x, self.weight, self.eps)
            return y
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """torch's, with inputs and weights in float32 whatever the weights' storage type."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(
            x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )
        return y.to(x.dtype)


def make_norm(kind: str, dim: int, eps: float) -> RMSNorm | LayerNorm:
    """kind: rms or layer."""
    return RMSNorm(dim, eps) if kind == "rms" else LayerNorm(dim, eps)


def rope_table(length: int, dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [T, d/2], half-split layout. Cached: a table costs more than its use.
    In a compiled graph it is a part of the graph, which may not look into a cache."""
    if torch.compiler.is_compiling():
        return _new_rope_table(length, dim, theta, device)
    return _rope_table(length, dim, theta, str(device))


@functools.lru_cache(maxsize=32)
def _rope_table(length: int, dim: int, theta: float, device: str) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # else training could not save it for its backward pass
        return _new_rope_table(length, dim, theta, torch.device(device))


def _new_rope_table(
    length: int, dim: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    powers = torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim
    positions = torch.arange(length, dtype=torch.float32, device=device)
    angles = positions[:, None] * theta**-powers
    return angles.cos(), angles.sin()


def apply_rope(x_bthd: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates (x[i], x[i + d/2]) by the position's angle, in float32 whatever x's type."""
    if not torch.compiler.is_compiling():
        return Rotate.apply(x_bthd, *table)
    # A compiler fuses the plain chain, and torch 2.11's gave wrong gradients of Rotate on CUDA.
    cos, sin = (values.unsqueeze(-2) for values in table)
    first, second = x_bthd.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x_bthd.dtype)


class AttentionMask:
    """bool, broadcastable to [b, 1, t, s], True where a query may look; contains causality.

    One object serves all layers of a forward pass, so that its additive form is made once.
    causal: nothing after the query is ever allowed.
    """

    def __init__(self, allowed: Tensor, *, causal: bool) -> None:
        self.allowed, self.causal = allowed, causal
        self._bias: Tensor | None = None

    def bias(self, dtype: torch.dtype) -> Tensor:
        """0 where allowed, -inf elsewhere."""
        if self._bias is None or self._bias.dtype != dtype:
            zeros = torch.zeros(self.allowed.shape, dtype=dtype, device=self.allowed.device)
            self._bias = zeros.masked_fill_(~self.allowed, float("-inf"))
        return self._bias


@dataclass(kw_only=True)
class Documents:
    """Causality within the documents of packed rows, as flash attention's kernel for sequences of
    many lengths takes it: a dense mask would turn that kernel off.

    offsets int32 [n+1]: where each document begins in the rows laid end to end, and their length
    at the end; documents may be empty. segments int [B,T]: the same, as an id per position.
    """

    offsets: Tensor
    segments: Tensor
    _mask: AttentionMask | None = None

    def mask(self) -> AttentionMask:
        """The same for kernels that take masks; made once."""
        if self._mask is None:
            length, device = self.segments.shape[1], self.segments.device
            self._mask = Visibility(segments=self.segments).mask(length, device)
            assert self._mask is not None
        return self._mask


Mask = AttentionMask | Documents | None
LookUp = Callable[[Tensor, Tensor, Tensor, Mask, bool], Tensor]
"""What `attend` is: q, k, v, mask, causal → the values that were looked up."""


def document_offsets(segments: Tensor) -> Tensor:
    """Documents.offsets of segments int [B,T], padded with empty documents to a multiple of 64, so
    that compiled graphs see few lengths. On the host: a device would have to be waited for."""
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    begins = starts.flatten().nonzero()[:, 0]
    length = -(-(len(begins) + 1) // _OFFSETS_MULTIPLE) * _OFFSETS_MULTIPLE
    offsets = torch.full((length,), segments.numel(), dtype=torch.int32)
    offsets[: len(begins)] = begins
    return offsets


def has_varlen(q: Tensor) -> bool:
    """Whether torch's kernel for sequences of many lengths takes q [b, h, t, d]."""
    half = q.dtype in (torch.bfloat16, torch.float16)
    return q.device.type in ("cuda", "meta") and half and q.shape[-1] <= 256


def _attend_documents(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    batch, heads, length, dim = q.shape
    grouped: dict[str, Any] = {}
    if heads > k.shape[1]:
        # Of torch 2.13; those before take one key and value per query head.
        if "enable_gqa" in inspect.signature(varlen_attn).parameters:
            grouped = {"enable_gqa": True}
        else:
            k, v = (x.repeat_interleave(heads // k.shape[1], dim=1) for x in (k, v))
    q, k, v = (x.transpose(1, 2).reshape(batch * length, -1, dim) for x in (q, k, v))
    y = varlen_attn(
        q,
        k,
        v,
        offsets,
        offsets,
        length,  # no document is longer than its row
        length,
        window_size=(-1, 0),  # causal
        **grouped,
    )
    assert isinstance(y, Tensor)
    return y.view(batch, length, heads, dim).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask, causal: bool) -> Tensor:
    """softmax(q·kᵀ/√d)·v for [b, h, t, d]; k and v may have fewer heads (grouped).

    Without a mask `causal` decides.
    """
    if isinstance(mask, Documents):
        if has_varlen(q):
            return _attend_documents(q, k, v, mask.offsets)
        mask = mask.mask()
    groups, short = q.shape[1] // k.shape[1], q.shape[2] <= _SHORT
    if q.device.type != "cpu" or q.shape[2] > PLAIN_ATTENTION_LIMIT:
        allowed = None if mask is None else mask.allowed
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=causal and mask is None, enable_gqa=groups > 1
        )
    if groups > 1:
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    if torch.compiler.is_compiling() or (short and not trains_on_cpu(q)):
        scores = (q * (1.0 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores + mask.bias(scores.dtype)
        elif causal:
            scores = scores.masked_fill(~causal_mask(q.shape[2], q.device), float("-inf"))
        return scores.softmax(dim=-1) @ v
    if mask is None and causal:
        mask = _causal(q.shape[2])
    kind = compute_type(q)
    q, k, v = q.to(kind), k.to(kind), v.to(kind)
    if mask is None:
        return plain_attention(q, k, v, None, causal=False)
    bias = mask.bias(kind)
    bias = bias[(None,) * (4 - bias.ndim)][:, 0]
    return plain_attention(q, k, v, bias, mask.causal)


@functools.lru_cache(maxsize=8)
def _causal(length: int) -> AttentionMask:
    """On the CPU; one for all layers, and all steps."""
    return AttentionMask(causal_mask(length, torch.device("cpu"))[None, None], causal=True)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """bool [T,T], True where the key is not after the query."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """Who sees whom beyond plain causality.

    segments int [B,T]: positions of packed rows see only their own document; offsets: see
    Documents, where whoever made the batch has counted them. keys bool [B,T]:
    padding (False) is seen by nobody; on the right, causality alone hides it, so leave it out.
    spans int [B,T]: equal ids > 0 see each other both ways (image blocks); 0 elsewhere.
    """

    segments: Tensor | None = None
    offsets: Tensor | None = None
    keys: Tensor | None = None
    spans: Tensor | None = None

    def look(self, length: int, device: torch.device) -> Mask:
        """The mask over [B, 1, T, T], or the documents where nothing else matters."""
        plain = self.keys is None and self.spans is None
        if plain and self.segments is not None and self.offsets is not None:
            return Documents(offsets=self.offsets, segments=self.segments)
        return self.mask(length, device)

    def mask(self, length: int, device: torch.device) -> AttentionMask | None:
        """Over [B, 1, T, T], or None where plain causality says it all. A padded position sees
        itself, which keeps its softmax finite."""
        if self.segments is None and self.keys is None and self.spans is None:
            return None
        allowed = causal_mask(length, device)
        if self.spans is not None:
            spans = self.spans
            allowed = allowed | ((spans[:, :, None] == spans[:, None]) & (spans > 0)[:, :, None])
        if self.segments is not None:
            allowed = allowed & (self.segments[:, :, None] == self.segments[:, None])
        if self.keys is not None:
            allowed = allowed & self.keys[:, None, :].bool()
            allowed = allowed | torch.eye(length, dtype=torch.bool, device=device)
        return AttentionMask(allowed[:, None], causal=self.spans is None)


class Attention(nn.Module):
    """Self-attention with one fused q/k/v projection; no biases unless asked for."""

    def __init__(
        self,
        dim: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        qk_norm: str | None = None,
        norm_eps: float = 1e-5,
        bias: bool = False,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads or n_heads
        self.head_dim = head_dim or dim // n_heads
        width = (n_heads + 2 * self.n_kv_heads) * self.head_dim
        self.qkv = Linear(dim, width, bias=bias or qkv_bias)
        self.out = Linear(n_heads * self.head_dim, dim, bias=bias)
        self.q_norm = make_norm(qk_norm, self.head_dim, norm_eps) if qk_norm else None
        self.k_norm = make_norm(qk_norm, self.head_dim, norm_eps) if qk_norm else None

    def forward(
        self,
        x_btd: Tensor,
        *,
        mask: Mask = None,
        causal: bool = False,
        rope: tuple[Tensor, Tensor] | None = None,
        rows: Tensor | None = None,
        look: LookUp | None = None,
    ) -> Tensor:
        """x [B,T,D] → [B,T,D]; with rows int64 [B], of these positions alone: [B,1,D].

        look: in place of `attend`, with the keys as they are compared, their positions turned in.
        """
        batch, length, _ = x_btd.shape
        qkv = self.qkv(x_btd).view(batch, length, -1, self.head_dim)
        n_qk = self.n_heads + self.n_kv_heads
        qk, v = qkv.split((n_qk, self.n_kv_heads), dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split((self.n_heads, self.n_kv_heads), dim=2)
            qk = torch.cat((self.q_norm(q), self.k_norm(k)), dim=2)
        if rope is not None:
            qk = apply_rope(qk, rope)
        q, k = qk.transpose(1, 2).split((self.n_heads, self.n_kv_heads), dim=1)
        y = (look or attend)(q, k, v.transpose(1, 2), mask, causal)
        y = y.transpose(1, 2).reshape(batch, length, -1)
        return self.out(y if rows is None else take_rows(y, rows))


def take_rows(x_btd: Tensor, rows: Tensor) -> Tensor:
    """[B,T,D] at positions int64 [B] → [B,1,D]."""
    return x_btd.gather(1, rows[:, None, None].expand(-1, 1, x_btd.shape[-1]))


class SwiGLU(nn.Module):
    """W3·(silu(gate)·up), gate and up in one projection."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate_up = Linear(dim, 2 * hidden_dim, bias=False)
        self.down = Linear(hidden_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate_up = self.gate_up(x)
        if trains_on_cpu(x):
            return self.down(GatedUnit.apply(gate_up))
        gate, up = gate_up.chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class GeluMLP(nn.Module):
    """Linear, GELU (tanh form), linear, with biases: the vision towers' feed-forward."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.up = Linear(dim, hidden_dim)
        self.down = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


def truncated_normal_(parameter: Tensor, std: float) -> None:
    """N(0, std²) cut at ±3σ."""
    nn.init.trunc_normal_(parameter, 0.0, std, -3 * std, 3 * std)


def init_block(attention: Attention, ffn: SwiGLU | GeluMLP, dim: int, layer: int) -> None:
    """σ = D^-1/2 into the block; residual outputs divided by sqrt(2(l+1)), l from 0."""
    residual_std = dim**-0.5 / math.sqrt(2 * (layer + 1))
    into = ffn.gate_up if isinstance(ffn, SwiGLU) else ffn.up
    for linear, std in (
        (attention.qkv, dim**-0.5),
        (into, dim**-0.5),
        (attention.out, residual_std),
        (ffn.down, residual_std),
    ):
        truncated_normal_(linear.weight, std)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
