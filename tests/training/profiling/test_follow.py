"""What grows during a step goes to the part of the model, and the phase, that made it grow."""

from collections import Counter

import pytest
import torch
from model_zoo import build, language_config, robot_batch, vla_config
from test_compile import CAPTIONS, ROBOT, TEXT, mixed
from test_objectives import caption_batch, text_batch
from torch.utils.flop_counter import FlopCounterMode

from foundry_core.training.parts import OUTPUT, recompute
from foundry_core.training.profiling.follow import Follower
from foundry_core.training.profiling.ledger import BACKWARD, FORWARD, MEASURING, Label, Ledger


def test_a_ledger_splits_a_count_and_loses_nothing():
    now = [0.0]
    ledger = Ledger(lambda: now[0])
    ledger.start()
    now[0] += 1  # rest
    with ledger.phase(FORWARD):
        now[0] += 2
        ledger.enter("head")
        now[0] += 4
        with ledger.phase(MEASURING):
            now[0] += 100
        now[0] += 8
        ledger.enter("")
        now[0] += 16
    now[0] += 32
    ledger.stop()
    assert ledger.totals(lambda a, b: b - a) == {
        Label("rest"): 1 + 32,
        Label(FORWARD): 2 + 16,
        Label(FORWARD, "head"): 4 + 8,
    }


class _Costs(torch.autograd.Function):
    """Adds known amounts to a count, forward and backward."""

    @staticmethod
    def forward(ctx, x, spent, forward, backward):
        ctx.spent, ctx.cost = spent, backward
        spent[0] += forward
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.spent[0] += ctx.cost
        return gradient, None, None, None


def _costly(module, spent, forward, backward):
    """The module's output costs that much."""
    module.register_forward_hook(lambda _, __, y: _Costs.apply(y, spent, forward, backward))


def followed(model, objectives, batch, mark, between):
    loss, inputs = mixed(model, objectives, batch)
    ledger = Ledger(mark)
    with Follower(loss, model, ledger):
        ledger.start()
        with ledger.phase(FORWARD):
            total, _ = loss(*inputs)
        with ledger.phase(BACKWARD):
            total.backward()
        ledger.stop()
    return ledger.totals(between)


def policy(model, mark, between=lambda a, b: b - a):
    batch = {"robot": robot_batch([4, 3]), "captions": caption_batch()}
    return followed(model, {"robot": ROBOT, "captions": CAPTIONS}, batch, mark, between)


@pytest.mark.parametrize("again", [(), ("language", "vision", "head")])
def test_each_part_pays_for_what_it_does(again):
    """Two modalities pass the tower, the projector and the last norm of the language model; the
    projector's last layer is one of its list. A recomputed block runs again on the way back."""
    model, spent = build(vla_config()), [0]
    recompute(model, again)
    _costly(model.backbone.vision.norm, spent, 1, 10)
    _costly(model.backbone.projector.layers[-1], spent, 100, 1_000)
    _costly(model.backbone.language.norm, spent, 10_000, 100_000)
    _costly(model.head.trunk.blocks[0].attention, spent, 1_000_000, 10_000_000)
    found = policy(model, lambda: spent[0])
    repeated = 1_000_000 if again else 0
    assert Counter(found) == Counter(
        {
            Label(FORWARD, "vision"): 2,
            Label(BACKWARD, "vision"): 20,
            Label(FORWARD, "projector"): 200,
            Label(BACKWARD, "projector"): 2_000,
            Label(FORWARD, "language"): 20_000,
            Label(BACKWARD, "language"): 200_000,
            Label(FORWARD, "head"): 1_000_000,
            Label(BACKWARD, "head"): 10_000_000 + repeated,
        }
    )
    assert sum(found.values()) == spent[0]


def test_flops_of_the_parts_make_the_whole():
    """The output layer forms its gradients on the way forward: three products of [n,D] and [V,D]
    per target, and none on the way back."""
    model = build(language_config())
    with FlopCounterMode(display=False) as counter:
        found = followed(
            model,
            {"text": TEXT},
            {"text": text_batch()},
            counter.get_total_flops,
            lambda a, b: b - a,
        )
    assert sum(found.values()) == counter.get_total_flops()
    targets, (vocabulary, width) = 37, model.output_layer[0].shape
    assert found[FORWARD, OUTPUT] == 3 * 2 * targets * vocabulary * width
    assert found.get(Label(BACKWARD, OUTPUT), 0) == 0
    assert found[FORWARD, "language"] < found[BACKWARD, "language"]


def test_a_followed_model_is_left_as_it_was():
    model = build(vla_config())
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    policy(model, lambda: 0)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert not any(module._forward_hooks for module in model.modules())


def test_following_changes_no_gradient():
    found = []
    for follow in (False, True):
        model = build(vla_config())
        batch = {"robot": robot_batch([4, 3]), "captions": caption_batch()}
        if follow:
            policy(model, lambda: 0)
        else:
            loss, inputs = mixed(model, {"robot": ROBOT, "captions": CAPTIONS}, batch)
            loss(*inputs)[0].backward()
        found.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
