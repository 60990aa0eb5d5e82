"""What every decoder must hold: reading on with a cache is reading all again."""

import torch

from foundry_core.models.interfaces import Decoder, Prompts
from foundry_core.models.kv_cache import KeyValues

STEPS = 6


@torch.no_grad()
def assert_cached_is_full(
    model: Decoder, prompts: Prompts, *, avoid: int | None = None, steps: int = STEPS
) -> KeyValues:
    """Logits within 1e-5 and equal greedy tokens at every step, rows of different lengths side by
    side. avoid: a token that is not written (the image token). Returns the cache."""
    model.eval()
    rows = [prompts.tokens[b, :n].tolist() for b, n in enumerate(prompts.lengths.tolist())]
    hidden, cache = model.prefill(prompts, steps)
    for step in range(steps + 1):
        cached = model.logits(hidden)
        full = full_logits(model, rows, prompts)
        torch.testing.assert_close(cached, full, atol=1e-5, rtol=0)
        if avoid is not None:
            cached[:, avoid] = full[:, avoid] = -torch.inf
        tokens = cached.argmax(dim=-1)
        assert torch.equal(tokens, full.argmax(dim=-1)), step
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.append(token)
        if step < steps:
            hidden = model.step(tokens, cache)
    return cache


def full_logits(model: Decoder, rows: list[list[int]], prompts: Prompts) -> torch.Tensor:
    """[B,V] after each row, without a cache. prompts: whose images, and where the model began to
    speak."""
    hidden = model.hidden_of(Prompts.of(rows, images=prompts.images), prompts.lengths)
    return model.logits(torch.stack([hidden[b, len(row) - 1] for b, row in enumerate(rows)]))


@torch.no_grad()
def assert_row_alone(model: Decoder, prompts: Prompts, row: int) -> None:
    """A row's hidden states, of the prompt and of what follows, are those it has alone."""
    model.eval()
    length = int(prompts.lengths[row])
    images = None if prompts.images is None else prompts.images[row : row + 1]
    alone = Prompts.of([prompts.tokens[row, :length].tolist()], images=images)
    together, cache = model.prefill(prompts, 2)
    single, own = model.prefill(alone, 2)
    torch.testing.assert_close(together[row : row + 1], single, atol=1e-5, rtol=0)
    for token in (3, 4):
        tokens = torch.full((len(prompts.tokens),), token)
        together, single = model.step(tokens, cache), model.step(tokens[:1], own)
        torch.testing.assert_close(together[row : row + 1], single, atol=1e-5, rtol=0)
