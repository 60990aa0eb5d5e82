import pytest
import torch

from foundry_core.errors import FoundryError
from foundry_core.models.placeholders import (
    check_image_tokens,
    drop_placeholders,
    fill_placeholders,
    image_spans,
)

TOKENS = torch.tensor([[9, 9, 1, 9, 9, 2], [3, 9, 9, 4, 9, 9]])


def test_images_go_where_they_belong_in_order():
    embeddings = torch.zeros(2, 6, 1)
    images = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])[..., None]
    filled = fill_placeholders(embeddings, TOKENS == 9, images)[..., 0]
    assert filled.tolist() == [[1, 2, 0, 3, 4, 0], [0, 5, 6, 0, 7, 8]]


def test_gradients_reach_every_image_token_once():
    images = torch.ones(2, 4, 1, requires_grad=True)
    embeddings = torch.ones(2, 6, 1, requires_grad=True)
    fill_placeholders(embeddings, TOKENS == 9, images).sum().backward()
    assert images.grad.eq(1).all()
    assert embeddings.grad[..., 0].tolist() == (TOKENS != 9).float().tolist()


def test_count_mismatch_names_both_counts():
    check_image_tokens(TOKENS, 9, n_images=2, tokens_per_image=2)
    with pytest.raises(FoundryError, match=r"row 0 .* has 4 image tokens .* 3 images make 6"):
        check_image_tokens(TOKENS, 9, n_images=3, tokens_per_image=2)


def test_spans_number_the_images():
    assert image_spans(TOKENS == 9, 2).tolist() == [[1, 1, 0, 2, 2, 0], [0, 1, 1, 0, 2, 2]]


def test_dropping_keeps_the_rest_in_order():
    tokens, mask = drop_placeholders(TOKENS, None, 9)
    assert tokens.tolist() == [[1, 2], [3, 4]]
    assert mask is None
    rows = torch.tensor([[9, 1, 2, 0], [9, 3, 4, 5]])
    tokens, mask = drop_placeholders(rows, torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool(), 9)
    assert tokens.tolist() == [[1, 2, 0], [3, 4, 5]] or tokens[0, :2].tolist() == [1, 2]
    assert mask.tolist() == [[True, True, False], [True, True, True]]
