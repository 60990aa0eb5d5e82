import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_zoo import asked, awake, flow_config, seen, targets
from scipy import stats

from foundry_core.errors import FoundryError
from foundry_core.models.heads.flow import BetaTimes, LogitNormalTimes, UniformTimes
from foundry_core.models.heads.networks.flow import FlowHead, integrate, sample_times
from foundry_core.models.noise import Key

SIZES = {
    "condition_dim": 8,
    "proprio_dim": 6,
    "proprio_steps": 2,
    "horizon": 3,
    "action_dim": 5,
}


def head(**changes) -> FlowHead:
    torch.manual_seed(0)
    return awake(FlowHead(flow_config(**changes), **SIZES))


def batch(n=4):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(n, 1, 8, generator=generator),
        torch.randn(n, 2, 6, generator=generator),
        torch.randn(n, 3, 5, generator=generator),
        torch.rand(n, 3, 5, generator=generator) > 0.4,
    )


@settings(deadline=None)
@given(steps=st.integers(1, 60), solver=st.sampled_from(["euler", "heun"]))
def test_constant_velocity_is_integrated_exactly(steps, solver):
    times = []

    def velocity(x, t):
        times.append(t)
        return torch.full_like(x, 3.0)

    end = integrate(velocity, torch.ones(2, dtype=torch.float64), steps, solver)
    torch.testing.assert_close(end, torch.full((2,), 4.0, dtype=torch.float64))
    if solver == "euler":
        assert times == [i / steps for i in range(steps)]


def test_heun_is_second_order():
    def velocity(x, t):
        return x

    exact = np.e
    errors = [
        abs(integrate(velocity, torch.ones((), dtype=torch.float64), n, "heun").item() - exact)
        for n in (10, 20)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


def test_pairs_are_the_straight_line():
    h = head(num_noise_samples=6)
    _, _, actions, mask = batch()
    pairs = h.training_pairs(targets(actions, mask), Key(0, 3, torch.arange(4)))
    assert pairs.noised.shape == pairs.target.shape == (4, 6, 3, 5)
    assert pairs.times.shape == (4, 6)
    t = pairs.times[:, :, None, None]
    z = torch.where(mask[:, None], actions[:, None], 0.0) - pairs.target
    line = (1 - t) * z + t * actions[:, None]
    on = mask[:, None].expand(-1, 6, -1, -1)
    torch.testing.assert_close(pairs.noised[on], line[on], atol=1e-5, rtol=0)
    assert pairs.noised[~on].eq(0).all()
    assert len(z.flatten().unique()) == z.numel()  # every draw its own noise
    assert abs(z.mean()) < 0.2
    assert z.std() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("time", ["adaln", "sum", "token"])
def test_masked_elements_change_nothing(time):
    h = head(time=time, num_noise_samples=2)
    condition, proprio, actions, mask = batch()
    key = Key(0, 0, torch.arange(4))
    loss, count = h.training_loss_terms(seen(condition, proprio), targets(actions, mask), key)
    garbage = torch.where(mask, actions, float("nan"))
    again, _ = h.training_loss_terms(seen(condition, proprio), targets(garbage, mask), key)
    assert torch.equal(loss, again)
    assert count == 2 * mask.sum()
    loss.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in h.parameters())


@pytest.mark.parametrize("time", ["adaln", "sum", "token"])
def test_time_and_condition_matter(time):
    h = head(time=time)
    condition, proprio, actions, _ = batch()
    x = actions[:, None]
    v = [
        h.predict(h.trunk.context(c, p), x, torch.full((4, 1), t))
        for c, p, t in (
            (condition, proprio, 0.1),
            (condition, proprio, 0.9),
            (condition + 1, proprio, 0.1),
            (condition, proprio + 1, 0.1),
        )
    ]
    for other in v[1:]:
        assert (v[0] - other).abs().max() > 1e-3


def test_draws_share_the_condition_and_stay_apart():
    h = head(num_noise_samples=3)
    condition, proprio, _, _ = batch()
    context = h.trunk.context(condition, proprio)
    x, t = torch.randn(4, 3, 3, 5), torch.rand(4, 3)
    together = h.predict(context, x, t)
    for r in range(3):
        alone = h.predict(context, x[:, r : r + 1], t[:, r : r + 1])
        torch.testing.assert_close(together[:, r : r + 1], alone, atol=1e-5, rtol=0)


def test_the_head_learns_a_target():
    """Two modes told apart by the condition: after a minute's worth of tiny steps, samples land."""
    torch.manual_seed(0)
    h = FlowHead(flow_config(num_noise_samples=4), **SIZES)
    optimizer = torch.optim.Adam(h.parameters(), 3e-3)
    n = 16
    sign = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)
    condition = sign[:, None, None].expand(n, 1, 8)
    actions = sign[:, None, None].expand(n, 3, 5)
    mask, proprio = torch.ones(n, 3, 5, dtype=torch.bool), torch.zeros(n, 2, 6)
    for step in range(150):
        loss, count = h.training_loss_terms(
            seen(condition, proprio), targets(actions, mask), Key(0, step, torch.arange(n))
        )
        optimizer.zero_grad()
        (loss.sum() / count).backward()
        optimizer.step()
    out = h.sample(seen(condition, proprio), asked(torch.arange(n), 0, n))
    assert (out - actions).abs().mean() < 0.25


def test_sampling_depends_on_each_row_s_seed_alone():
    h = head()
    condition, proprio, _, mask = batch()
    out = h.sample(seen(condition, proprio), asked(torch.tensor([5, 6, 7, 8]), 2, 4))
    alone = h.sample(seen(condition[2:3], proprio[2:3]), asked(7, 2, 1))
    torch.testing.assert_close(out[2:3], alone, atol=1e-5, rtol=0)
    masked = h.sample(seen(condition, proprio), asked(5, 2, 4, mask))
    assert masked[~mask].eq(0).all()


@pytest.mark.parametrize(
    ("config", "distribution"),
    [
        (UniformTimes(), stats.uniform()),
        (BetaTimes(alpha=1.0, beta=1.5), stats.beta(1.0, 1.5)),
        (BetaTimes(alpha=1.5, beta=1.0), stats.beta(1.5, 1.0)),
        (BetaTimes(alpha=2.0, beta=3.0), stats.beta(2.0, 3.0)),
    ],
)
def test_times_follow_their_distribution(config, distribution):
    t = sample_times(config, Key(0, 0, torch.arange(20000)), 2)
    assert t.min() >= 0
    assert t.max() < 1
    assert stats.kstest(t.double().numpy().ravel(), distribution.cdf).pvalue > 1e-3


def test_logit_normal_times():
    t = sample_times(LogitNormalTimes(mean=0.3, std=0.8), Key(0, 0, torch.arange(20000)), 1)
    n = torch.logit(t.double()).numpy().ravel()
    assert stats.kstest(n, stats.norm(0.3, 0.8).cdf).pvalue > 1e-3
    extreme = sample_times(LogitNormalTimes(mean=60.0), Key(0, 0, torch.arange(9)), 1)
    assert extreme.max() < 1


def test_zero_solver_steps_are_refused():
    with pytest.raises(FoundryError, match="at least 1 step, got 0"):
        integrate(lambda x, t: x, torch.zeros(1), 0)
