"""Known values of the schedules and the average."""

import pytest
import torch
from torch import nn

from foundry_core.training.config import FixedEma, PowerEma, ScheduleConfig
from foundry_core.training.optim import lr_multiplier
from foundry_core.training.state import Ema, ema_decay


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.1), (4, 0.5), (9, 1.0), (55, 0.55), (100, 0.1)]
)
def test_cosine_known_values(step, expected):
    config = ScheduleConfig(kind="cosine", warmup=10, min_ratio=0.1)
    assert lr_multiplier(config, step, 100) == pytest.approx(expected, abs=1e-12)


def test_wsd_holds_then_falls_and_branches_share_the_stable_phase():
    config = ScheduleConfig(kind="wsd", warmup=10, min_ratio=0.0, decay_fraction=0.2)
    assert [lr_multiplier(config, s, 100) for s in (9, 40, 80)] == [1.0, 1.0, 1.0]
    assert lr_multiplier(config, 90, 100) == pytest.approx(0.5)
    assert lr_multiplier(config, 100, 100) == pytest.approx(0.0)
    assert all(lr_multiplier(config, s, 50) == lr_multiplier(config, s, 100) for s in range(40))


def test_constant_after_warmup():
    config = ScheduleConfig(kind="constant", warmup=2)
    assert [lr_multiplier(config, s, 5) for s in range(5)] == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_warmup_longer_than_the_run_never_exceeds_one():
    config = ScheduleConfig(warmup=10)
    assert lr_multiplier(config, 3, 4) == pytest.approx(0.4)


def test_power_decay_known_values():
    known = {0: 0, 1: 0, 2: 0.405396, 3: 0.561309, 10: 0.822172, 100: 0.968377, 1000: 0.994377}
    for n, expected in known.items():
        assert ema_decay(PowerEma(), n) == pytest.approx(expected, abs=5e-7)


def test_average_follows_the_formula_in_float32_and_skips_frozen_weights():
    module = nn.Linear(2, 2, bias=True)
    module.bias.requires_grad_(False)
    ema = Ema(module, FixedEma(decay=0.75))
    start = module.weight.detach().clone()
    with torch.no_grad():
        module.weight += 1
    ema.update(1)
    torch.testing.assert_close(ema.shadow["weight"], start + 0.25)
    assert list(ema.shadow) == ["weight"]
    ema.copy_to_module()
    torch.testing.assert_close(module.weight.detach(), start + 0.25)
