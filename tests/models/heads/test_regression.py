import pytest
import torch
from model_zoo import asked, awake, seen, targets

from foundry_core.models.heads.networks.regression import RegressionHead, RegressionHeadConfig
from foundry_core.models.noise import Key


@pytest.mark.parametrize("loss", ["squared", "absolute"])
def test_loss_and_prediction(loss):
    config = RegressionHeadConfig(dim=16, n_layers=1, n_heads=2, ffn_dim=16, loss=loss)
    head = awake(
        RegressionHead(
            config, condition_dim=8, proprio_dim=0, proprio_steps=None, horizon=3, action_dim=5
        )
    )
    condition, actions = torch.randn(4, 1, 8), torch.randn(4, 3, 5)
    mask = torch.rand(4, 3, 5) > 0.5
    total, count = head.training_loss_terms(
        seen(condition, None), targets(actions, mask), Key(0, 0, torch.arange(4))
    )
    predicted = head.sample(seen(condition, None), asked(0, 0, 4))
    error = (predicted - actions)[mask]
    expected = error.square().sum() if loss == "squared" else error.abs().sum()
    torch.testing.assert_close(total.sum(), expected)
    assert count == mask.sum()
    total.sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    assert (predicted[:, 0] - predicted[:, 1]).abs().max() > 1e-3  # each step its own query
