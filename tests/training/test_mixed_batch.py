"""Micro-batches of like lengths: nothing lost, nothing padded for nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.errors import FoundryError
from foundry_core.training.mixed_batch import split_batch

PAD = -7


def ragged(lengths: list[int]) -> dict[str, torch.Tensor]:
    """Rows of 1, 2, 3, ... real tokens whose values say which row they are of."""
    width = max(lengths) + 3
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.arange(len(lengths))
    return {
        "images": torch.zeros(len(lengths), 1) + ids[:, None],
        "tokens": torch.where(mask, ids[:, None] * 1000 + torch.arange(width), PAD),
        "token_mask": mask,
        "target_mask": mask & (torch.arange(width) > 0),
        "sample_ids": ids,
    }


@given(st.lists(st.integers(1, 60), min_size=4, max_size=40), st.sampled_from([1, 2, 4]))
@settings(max_examples=60, deadline=None)
def test_every_row_is_in_one_part_with_all_its_tokens(lengths: list[int], parts: int) -> None:
    lengths = lengths[: len(lengths) // parts * parts]
    batch = ragged(lengths)
    text = {"tokens": torch.arange(len(lengths))[:, None].expand(-1, 5)}
    pieces = split_batch({"captions": batch, "text": text}, 2 * len(lengths) // parts)
    assert len(pieces) == parts
    seen = []
    for piece in pieces:
        part = piece["captions"]
        assert {len(t) for t in part.values()} == {len(lengths) // parts}
        for row, number in enumerate(part["sample_ids"].tolist()):
            seen.append(number)
            real = part["tokens"][row][part["token_mask"][row]]
            assert real.tolist() == [number * 1000 + i for i in range(lengths[number])]
            assert part["images"][row].item() == number
            assert part["target_mask"][row].sum() == lengths[number] - 1
        longest = part["token_mask"].sum(dim=1).max().item()
        assert longest <= part["tokens"].shape[1] < longest + 8
    assert sorted(seen) == list(range(len(lengths)))
    assert torch.cat([piece["text"]["tokens"] for piece in pieces]).equal(text["tokens"])


def test_padding_shrinks_where_lengths_differ() -> None:
    batch = {"captions": ragged([64, 3, 60, 5, 4, 62, 2, 63])}
    padded = sum(piece["captions"]["tokens"].numel() for piece in split_batch(batch, 4))
    assert padded == 4 * 8 + 4 * 64 < batch["captions"]["tokens"].numel()


def test_a_batch_that_fits_is_left_as_it_is() -> None:
    batch = {"captions": ragged([5, 1, 9])}
    assert split_batch(batch, None) == [batch] == split_batch(batch, 3)
    with pytest.raises(FoundryError, match="does not divide into 2"):
        split_batch(batch, 2)


def test_compiled_blocks_see_one_length():
    """Rows keep their order and the batch's padding: a shape of its own would be a compilation."""
    tokens = torch.arange(4 * 24).view(4, 24)
    mask = torch.arange(24) < torch.tensor([3, 20, 5, 9])[:, None]
    batch = {"robot": {"tokens": tokens, "token_mask": mask}}
    pieces = [piece["robot"]["tokens"] for piece in split_batch(batch, 2, cut=False)]
    assert torch.equal(torch.cat(pieces), tokens)
    assert {tuple(piece["robot"]["tokens"].shape) for piece in split_batch(batch, 2)} != {(2, 24)}
