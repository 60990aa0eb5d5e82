"""Bytes, against what can be counted by hand."""

import torch
from model_zoo import build, language_config
from torch import nn

from foundry_core.training.parts import parts_of, recompute
from foundry_core.training.profiling.follow import Follower
from foundry_core.training.profiling.ledger import FORWARD, Ledger
from foundry_core.training.profiling.memory import (
    WEIGHT_COPIES,
    Held,
    unused_parameters,
    weight_bytes,
)


class _Loss(nn.Module):
    """Calls as MixedLoss is called: (what is differentiated, the rest)."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self._call = model, call

    def forward(self):
        return self._call(self.model), {}


def held(model, call, *, times=1):
    loss = _Loss(model, call)
    ledger = Ledger(lambda: None)
    found = Held(loss, ledger)
    with Follower(loss, model, ledger), found.watching():
        for _ in range(times):
            with ledger.phase(FORWARD):
                total, _ = loss()
            total.backward()
    return found.most


def test_held_are_inputs_once_and_no_weights():
    """A linear layer keeps its input, tanh its output, the second layer the same output; a sum
    nothing."""
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))
    x = torch.randn(8, 6)
    assert held(model, lambda m: m(x).sum(), times=3) == {"model": 4 * (8 * 6 + 8 * 10)}


def test_the_pass_that_holds_most_counts():
    model, rows = nn.Linear(6, 6), iter([8, 32, 16])
    found = held(model, lambda m: m(torch.randn(next(rows), 6)).sum(), times=3)
    assert found == {"model": 4 * 32 * 6}


def test_autocasts_copies_of_weights_are_no_activations():
    model, x = nn.Linear(6, 10, bias=False), torch.randn(8, 6, requires_grad=True)

    def call(module):
        with torch.autocast("cpu", torch.bfloat16):
            return module(x).sum()

    assert held(model, call) == {"model": 2 * 8 * 6, WEIGHT_COPIES: 2 * 6 * 10}


def test_a_recomputed_layer_holds_its_input_alone():
    """8 rows of 16 positions of width 32 in float32."""
    tokens = torch.randint(0, 40, (8, 16))
    found = []
    for layers in (4, 5):
        model = build(language_config(n_layers=layers))
        recompute(model, ["language"])
        most = held(model, lambda m: m.hidden(m.embed(tokens)).sum())
        found.append(most["language"])
    assert found[1] - found[0] == 8 * 16 * 32 * 4


def test_weights_count_once_in_the_first_part_that_has_them():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 2)
    found = weight_bytes({"a": [first], "b": [second, first]})
    assert found == {"a": 4 * 16, "b": 4 * (8 + 2)}
    model = build(language_config())
    assert weight_bytes(parts_of(model)) == {
        "language": 4 * sum(p.numel() for p in model.parameters())
    }


def test_parameters_without_a_gradient_are_named_and_frozen_ones_are_not():
    model = nn.ModuleDict(
        {"used": nn.Linear(2, 2), "spare": nn.Linear(2, 2), "still": nn.Linear(2, 2)}
    )
    model["still"].requires_grad_(False)
    model["used"](torch.ones(1, 2)).sum().backward()
    assert list(unused_parameters(model)) == ["spare.weight", "spare.bias"]
