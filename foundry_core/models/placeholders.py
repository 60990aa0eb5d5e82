"""Image placeholders in a token sequence: counting them on the host, filling them on the device."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from foundry_core.errors import FoundryError

_as_on_a_device = False


def on_host(tokens: Tensor) -> bool:
    """Whether counting them costs no wait for a device and breaks no compiled graph."""
    if tokens.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return not _as_on_a_device


@contextlib.contextmanager
def as_on_a_device() -> Iterator[None]:
    """Inside, CPU tensors are treated as a device's, so that its host waits can be counted here."""
    global _as_on_a_device
    before, _as_on_a_device = _as_on_a_device, True
    try:
        yield
    finally:
        _as_on_a_device = before


def wrong_row(tokens: Tensor, token_id: int, expected: int) -> tuple[int, int] | None:
    """(row, its count) of the first row that does not hold `expected` of a token."""
    counts = (tokens == token_id).sum(dim=1)
    wrong = (counts != expected).nonzero()
    return (int(wrong[0]), int(counts[wrong[0]])) if len(wrong) else None


def check_image_tokens(
    tokens: Tensor, image_token_id: int, n_images: int, tokens_per_image: int
) -> None:
    """Raises FoundryError unless every row holds n_images · tokens_per_image placeholders.

    Meant for the batch while it is still on the CPU (objectives call it): on a device it would
    stall the queue at every step.
    """
    expected = n_images * tokens_per_image
    wrong = wrong_row(tokens, image_token_id, expected)
    if wrong:
        raise FoundryError(
            f"row {wrong[0]} of the batch has {wrong[1]} image tokens (id {image_token_id}), "
            f"but its {n_images} images make {expected} ({tokens_per_image} each)",
            "the expansion of placeholders must use the model's tokens_per_image",
        )


def fill_placeholders(embeddings: Tensor, is_image: Tensor, image_tokens: Tensor) -> Tensor:
    """Row b's k-th placeholder takes image_tokens[b, k]; other positions keep their embedding.

    embeddings [B,T,D], is_image bool [B,T], image_tokens [B,M,D]. A gather, because masked_scatter
    has to count on the host in its backward pass.
    """
    order = (is_image.cumsum(dim=1) - 1).clamp_(0, image_tokens.shape[1] - 1)
    index = order[:, :, None].expand(-1, -1, embeddings.shape[-1])
    filled = image_tokens.to(embeddings.dtype).gather(1, index)
    return torch.where(is_image[:, :, None], filled, embeddings)


def image_spans(is_image: Tensor, tokens_per_image: int) -> Tensor:
    """int64 [B,T]: 1 + the image's number at its placeholders, 0 elsewhere."""
    number = (is_image.cumsum(dim=1) - 1) // tokens_per_image + 1
    return number * is_image


def drop_placeholders(
    tokens: Tensor, token_mask: Tensor | None, image_token_id: int
) -> tuple[Tensor, Tensor | None]:
    """The same rows without image placeholders, in order: (tokens, token_mask).

    Rows that lose fewer keep masked columns at their end. Only the blind control uses it; it
    counts on the host, so that trainings call it before a batch travels.
    """
    keep = tokens != image_token_id
    if token_mask is not None:
        keep = keep & token_mask
    lengths = keep.sum(dim=1)
    longest, shortest = int(lengths.max()), int(lengths.min())
    order = torch.argsort((~keep).to(torch.int8), dim=1, stable=True)[:, :longest]
    kept = None if shortest == longest else keep.gather(1, order)
    return tokens.gather(1, order), kept
