"""What a decoder writes after a prompt, and how likely it finds what others wrote.

Rows do not know of each other: a row's noise is a function of (seed, its id, the token's number),
so that it says the same alone and in any batch, up to the rounding of its logits.

Legend: B batch, T sequence, V vocabulary, n predicted tokens.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from foundry_core.errors import FoundryError
from foundry_core.models import noise
from foundry_core.models.generation_config import GenerationConfig
from foundry_core.models.interfaces import Decoder, Prompts
from foundry_core.models.noise import Key

_STREAM = 7
_LOOK_EVERY = 16
"""Steps between two looks whether all rows have ended, where a look waits for a device."""
_LOGITS = 1 << 24
"""Of a scoring pass at once: 64 MiB of float32."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What was written, without the token that ended it. ended: by a stop token, at max_tokens, or
    where the model's context is full."""

    tokens: tuple[int, ...]
    ended: Literal["stop", "length", "context"]


def generate(
    decoder: Decoder,
    prompts: Prompts,
    config: GenerationConfig,
    *,
    stop: Collection[int] = (),
    banned: Sequence[int] = (),
    ids: Tensor | None = None,
    each: Callable[[Tensor], None] | None = None,
) -> list[Generated]:
    """One per row. stop: tokens that end a row; banned: tokens that are never written; ids int64
    [B]: what a row's noise depends on beside the seed, default its number. each: is given the
    tokens [B] of each step, also those that end a row and what comes after in it."""
    limits = _limits(decoder, prompts, config)
    device = device_of(decoder)
    stops, most = torch.tensor([*stop], device=device), torch.tensor(limits, device=device)
    ended = torch.zeros_like(most, dtype=torch.bool)
    written: list[Tensor] = []
    for tokens in stream(decoder, prompts, config, banned=banned, ids=ids):
        written.append(tokens)
        ended |= torch.isin(tokens, stops) | (most <= len(written))
        if each is not None:
            each(tokens)
        waits = each is None and device.type != "cpu"
        if (not waits or len(written) % _LOOK_EVERY == 0) and bool(ended.all()):
            break
    rows = torch.stack(written, dim=1).tolist()
    return [
        _ended(row[:limit], stop, full=limit < config.max_tokens)
        for row, limit in zip(rows, limits, strict=True)
    ]


def _ended(row: list[int], stop: Collection[int], *, full: bool) -> Generated:
    for number, token in enumerate(row):
        if token in stop:
            return Generated(tokens=tuple(row[:number]), ended="stop")
    return Generated(tokens=tuple(row), ended="context" if full else "length")


@torch.no_grad()
def stream(
    decoder: Decoder,
    prompts: Prompts,
    config: GenerationConfig,
    *,
    banned: Sequence[int] = (),
    ids: Tensor | None = None,
) -> Iterator[Tensor]:
    """Tokens int64 [B], one step after the other: whoever reads may stop at any. Arguments as
    `generate`'s. Ends at the longest row's limit."""
    steps = max(_limits(decoder, prompts, config))
    device = device_of(decoder)
    prompts = prompts.to(device)
    rows = torch.arange(len(prompts.tokens)) if ids is None else ids
    rows, never = rows.to(device), torch.tensor(banned, dtype=torch.int64, device=device)
    with _still(decoder):
        hidden, cache = decoder.prefill(prompts, steps - 1)
        for number in range(steps):
            logits = decoder.logits(hidden).float().index_fill_(1, never, float("-inf"))
            tokens = pick(logits, config, Key(config.seed, number, rows))
            yield tokens
            if number + 1 < steps:
                hidden = decoder.step(tokens, cache)


def _limits(decoder: Decoder, prompts: Prompts, config: GenerationConfig) -> list[int]:
    """Of each row: how many tokens it may write."""
    lengths, context = prompts.lengths.tolist(), decoder.context
    if context is not None and max(lengths) >= context:
        raise FoundryError(
            f"the prompt has {max(lengths)} tokens, which leaves nothing of the model's context of "
            f"{context}",
            "shorten it",
        )
    return [
        config.max_tokens if context is None else min(config.max_tokens, context - length)
        for length in lengths
    ]


def pick(logits: Tensor, config: GenerationConfig, key: Key) -> Tensor:
    """int64 [B] of logits float32 [B,V], as the config says."""
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    kept = logits.double() / config.temperature
    if config.top_k is not None and config.top_k < kept.shape[-1]:
        least = kept.topk(config.top_k, dim=-1).values[:, -1:]
        kept = kept.masked_fill(kept < least, float("-inf"))
    if config.top_p is not None:
        kept = _nucleus(kept, config.top_p)
    return draw(kept.softmax(dim=-1), noise.uniform(key, (2,), stream=_STREAM))


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """-inf where the likelier tokens reach top_p without it."""
    ordered = logits.sort(dim=-1, descending=True).values
    likelihoods = ordered.softmax(dim=-1)
    needed = likelihoods.cumsum(dim=-1) - likelihoods < top_p
    least = ordered.gather(-1, needed.sum(dim=-1, keepdim=True) - 1)
    return logits.masked_fill(logits < least, float("-inf"))


def draw(likelihoods: Tensor, uniform: Tensor) -> Tensor:
    """The token, int64 [B], in whose share of [0, 1) a number of 48 random bits falls. That is
    below 1 by more than float64 rounds, so nothing without a share is drawn. likelihoods float64
    [B,V]; uniform [B,2]: two numbers of noise.uniform."""
    high, low = uniform.double().unbind(dim=1)
    reached = likelihoods.cumsum(dim=-1)
    at = (high + low * 2.0**-24)[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, at, right=True)[:, 0]


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """tokens after a context. images uint8 [N,3,H,W], whose tokens are in the context; keep: so
    many first tokens of the context are never cut off (a beginning of text, images)."""

    context: Sequence[int]
    tokens: Sequence[int]
    images: Tensor | None = None
    keep: int = 0


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Natural logarithms: of the continuation, and of each of its tokens. greedy: whether each was
    the likeliest one."""

    total: float
    tokens: tuple[float, ...]
    greedy: bool


@torch.no_grad()
def score(
    decoder: Decoder, items: Sequence[Continuation], *, batch: int = 8, limit: int | None = None
) -> list[Likelihood]:
    """Of each item, in their order; `batch` of like length are read at once.

    The model reads at most `limit` tokens (default: its context), the last token of a continuation
    not counted, which it only predicts. Of what is longer, the context loses its oldest tokens
    after `keep`; the continuation loses none, and at least one token stays before it.
    """
    limit = decoder.context if limit is None else limit
    rows = [_fitted(item, limit) for item in items]

    def alike(number: int) -> int:
        """Rows of one batch have as many images."""
        images = items[number].images
        return 0 if images is None else len(images)

    order = sorted(range(len(rows)), key=lambda number: (alike(number), len(rows[number].ids)))
    found: dict[int, Likelihood] = {}
    with _still(decoder):
        for _, group in groupby(order, alike):
            numbers = list(group)
            for start in range(0, len(numbers), batch):
                some = numbers[start : start + batch]
                images = [x for i in some if (x := items[i].images) is not None]
                scored = _score(decoder, [rows[i] for i in some], images)
                found |= zip(some, scored, strict=True)
    return [found[number] for number in range(len(items))]


class _Row(NamedTuple):
    """Token ids, and where in them the continuation begins."""

    ids: list[int]
    start: int


def _fitted(item: Continuation, limit: int | None) -> _Row:
    context, tokens = list(item.context), list(item.tokens)
    if not context or not tokens:
        raise FoundryError(
            f"a continuation of {len(tokens)} tokens after a context of {len(context)}: both need "
            "at least one",
            "begin the context with the end-of-text token",
        )
    room = len(context) if limit is None else limit + 1 - len(tokens)
    if room < max(item.keep, 1):
        raise FoundryError(
            f"a continuation of {len(tokens)} tokens after {max(item.keep, 1)} that stay is longer "
            f"than the {limit} tokens that the model reads",
            "shorten it",
        )
    if len(context) > room:
        context = context[: item.keep] + context[len(context) - (room - item.keep) :]
    return _Row(context + tokens, len(context))


def _score(
    decoder: Decoder, rows: Sequence[_Row], images: Sequence[Tensor]
) -> Iterator[Likelihood]:
    device = device_of(decoder)
    pictures = torch.stack(list(images)) if images else None
    prompts = Prompts.of([row.ids[:-1] for row in rows], images=pictures).to(device)
    starts = torch.tensor([row.start for row in rows], device=device)
    hidden = decoder.hidden_of(prompts, starts)
    counts = [len(row.ids) - row.start for row in rows]
    width = hidden.shape[1]
    index = [
        number * width + at - 1
        for number, row in enumerate(rows)
        for at in range(row.start, len(row.ids))
    ]
    targets = torch.tensor([token for row in rows for token in row.ids[row.start :]])
    spoken = hidden.flatten(0, 1)[torch.tensor(index, device=device)]
    likelihoods, best = of_targets(decoder, spoken, targets.to(device))
    for some, hits in zip(likelihoods.split(counts), best.split(counts), strict=True):
        yield Likelihood(
            total=float(some.sum()), tokens=tuple(some.tolist()), greedy=bool(hits.all())
        )


def of_targets(decoder: Decoder, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-likelihoods float64 [n] and whether each target is the likeliest token, bool [n], on the
    CPU, of final-normed hidden [n,D] and targets int64 [n]."""
    rows = max(1, _LOGITS // decoder.vocab_size)
    likelihoods, best = [], []
    for some, wanted in zip(hidden.split(rows), targets.split(rows), strict=True):
        logits = decoder.logits(some).float()
        chosen = logits.log_softmax(dim=-1).gather(1, wanted[:, None])[:, 0]
        likelihoods.append(chosen.cpu().double())
        best.append((logits.argmax(dim=-1) == wanted).cpu())
    return torch.cat(likelihoods), torch.cat(best)


def device_of(decoder: Decoder) -> torch.device:
    """Where its weights lie."""
    return next(decoder.parameters()).device


@contextmanager
def _still(decoder: Decoder) -> Iterator[None]:
    """Without dropout; as it was afterwards."""
    training = decoder.training
    decoder.eval()
    try:
        yield
    finally:
        decoder.train(training)
