import pytest
import torch

from foundry_core.errors import FoundryError
from foundry_core.models.heads.bins import BinsHeadConfig
from foundry_core.models.heads.networks.bins import bins_of, centres_of


def test_known_bins():
    """256 of [-1, 1] are 1/128 wide; the outermost take what lies beyond."""
    actions = torch.tensor([-5.0, -1.0, -1 + 1 / 128, -1e-6, 0.0, 0.999, 1.0, 7.0])
    tokens = bins_of(actions, 256, 1.0)
    assert tokens.tolist() == [0, 0, 1, 127, 128, 255, 255, 255]
    centres = centres_of(tokens, 256, 1.0)
    assert centres[0].item() == -1 + 1 / 256
    assert centres[4].item() == 1 / 256


@pytest.mark.parametrize(("bins", "limit"), [(256, 1.5), (7, 0.3)])
def test_a_value_comes_back_within_half_a_bin(bins, limit):
    actions = torch.linspace(-limit, limit, 1001)
    back = centres_of(bins_of(actions, bins, limit), bins, limit)
    assert (back - actions).abs().max() <= limit / bins + 1e-6
    assert torch.equal(bins_of(back, bins, limit), bins_of(actions, bins, limit))


def test_the_last_text_tokens_or_rows_of_their_own():
    text, new = list(range(2, 300)), list(range(300, 556))
    assert BinsHeadConfig().speaking(text, []).token_ids == tuple(range(44, 300))
    own = BinsHeadConfig(rows="new")
    assert own.new_tokens[0] == "<|action_0|>"
    assert len(own.new_tokens) == 256
    assert own.speaking(text, new).token_ids == tuple(new)
    assert BinsHeadConfig().new_tokens == ()
    with pytest.raises(FoundryError, match="speaks 256 tokens, the vocabulary has 100 for text"):
        BinsHeadConfig().speaking(text[:100], [])
