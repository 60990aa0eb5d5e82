import math

import pytest
import torch
from model_zoo import asked, awake, seen, targets
from pydantic import ValidationError

from foundry_core.models.heads.networks.diffusion import (
    DiffusionHead,
    DiffusionHeadConfig,
    denoise,
    signal_levels,
)
from foundry_core.models.noise import Key

SIZES = {"condition_dim": 8, "proprio_dim": 6, "proprio_steps": 2, "horizon": 3, "action_dim": 5}


def config(**changes) -> DiffusionHeadConfig:
    base = {"dim": 32, "n_layers": 2, "n_heads": 2, "ffn_dim": 32, "train_steps": 20}
    return DiffusionHeadConfig(**(base | changes))


def test_schedule_known_values():
    """Below the clip of β the product telescopes: ā_t is a quotient of two cosines squared."""
    levels = signal_levels(100)
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    for t in (0, 49, 90):
        expected = math.cos(((t + 1) / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 / start
        assert levels[t].item() == pytest.approx(expected)
    assert (levels.diff() < 0).all()
    assert levels[-1] < 1e-5


@pytest.mark.parametrize("sampler_draws", [1, None])
@pytest.mark.parametrize("count", [1, 3, 7, 20])
def test_with_the_true_noise_every_sampler_lands_on_the_data(count, sampler_draws):
    levels = signal_levels(20).tolist()
    truth = torch.tensor([0.3, -0.8, 0.5])

    def predict(x, time):
        level = round(time * 20)
        return (x - math.sqrt(levels[level]) * truth) / math.sqrt(1 - levels[level])

    draws = torch.randn(4, sampler_draws or count, 1, 3)
    out = denoise(predict, draws, levels, count, clip=3.0)
    torch.testing.assert_close(out, truth.expand(4, 1, 3), atol=1e-4, rtol=0)


def test_ddpm_keeps_a_unit_normal():
    """Data N(0, 1): the ideal prediction is √(1−ā)·x, and the chain stays N(0, 1) as its steps
    grow small (the posterior variance it uses is exact for a single datum)."""
    spread = []
    for count in (50, 500):
        levels = signal_levels(count).tolist()
        draws = torch.randn(5000, count, 1, 1, generator=torch.Generator().manual_seed(0))
        out = denoise(
            lambda x, time, at=levels: math.sqrt(1 - at[round(time * len(at))]) * x,
            draws,
            levels,
            count,
            50.0,
        )
        assert out.mean().item() == pytest.approx(0, abs=0.05)
        spread.append(out.std().item())
    assert spread[1] == pytest.approx(1, abs=0.03)
    assert abs(1 - spread[0]) < 0.08


def test_learns_and_samples():
    torch.manual_seed(0)
    head = DiffusionHead(config(num_noise_samples=4), **SIZES)
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    n = 16
    sign = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)[:, None, None]
    condition, actions = sign.expand(n, 1, 8), sign.expand(n, 3, 5)
    mask, proprio = torch.ones(n, 3, 5, dtype=torch.bool), torch.zeros(n, 2, 6)
    for step in range(150):
        loss, count = head.training_loss_terms(
            seen(condition, proprio), targets(actions, mask), Key(0, step, torch.arange(n))
        )
        optimizer.zero_grad()
        (loss.sum() / count).backward()
        optimizer.step()
    out = head.sample(seen(condition, proprio), asked(torch.arange(n), 0, n))
    assert (out - actions).abs().mean() < 0.25


def test_masks_and_determinism():
    head = awake(DiffusionHead(config(sampler="ddpm", num_noise_samples=2), **SIZES))
    condition, proprio, actions = torch.randn(4, 1, 8), torch.randn(4, 2, 6), torch.randn(4, 3, 5)
    mask = torch.rand(4, 3, 5) > 0.4
    key = Key(0, 0, torch.arange(4))
    loss, count = head.training_loss_terms(seen(condition, proprio), targets(actions, mask), key)
    garbage = torch.where(mask, actions, float("nan"))
    assert torch.equal(
        loss, head.training_loss_terms(seen(condition, proprio), targets(garbage, mask), key)[0]
    )
    assert count == 2 * mask.sum()
    out = head.sample(seen(condition, proprio), asked(torch.tensor([5, 6, 7, 8]), 2, 4))
    alone = head.sample(seen(condition[2:3], proprio[2:3]), asked(7, 2, 1))
    torch.testing.assert_close(out[2:3], alone, atol=1e-4, rtol=0)


def test_more_steps_than_levels_are_refused():
    with pytest.raises(ValidationError, match="steps 30 exceeds train_steps 20"):
        config(steps=30)
