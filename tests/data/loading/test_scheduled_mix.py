"""Shares that change over training: exact counts, from anywhere, on any ranks."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from foundry_core.config.canonical import canonical
from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import DataConfig, LoaderResources, TextData
from foundry_core.data.loading.order import Order, rank_slice
from foundry_core.data.loading.schedule import WeightSchedule, weight_at
from foundry_core.data.loading.scheduled_mix import ScheduledMix
from foundry_core.errors import FoundryError

RAMP = {"points": [[0, 0.0], [100, 1.0]]}


@st.composite
def schedules(draw):
    steps = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=4)))
    weights = [draw(st.integers(0, 12)) / 4 for _ in steps]
    between = draw(st.sampled_from(["linear", "hold"]))
    return WeightSchedule(points=tuple(zip(steps, weights, strict=True)), between=between)


@st.composite
def mixes(draw):
    """One dataset always has a weight."""
    others = st.one_of(schedules(), st.integers(0, 8).map(lambda n: n / 4))
    return [draw(st.integers(1, 8)) / 4, *draw(st.lists(others, max_size=4)), draw(schedules())]


def cumulated(weights, steps, per_step):
    """Exact draws of each stream before each step, by hand."""
    total = [Fraction(0)] * len(weights)
    rows = [total]
    for step in range(steps):
        held = [Fraction(weight_at(w, step)) for w in weights]
        total = [t + per_step * h / sum(held) for t, h in zip(total, held, strict=True)]
        rows.append(total)
    return np.array([[float(x) for x in row] for row in rows])


@given(weights=mixes(), per_step=st.integers(1, 24), first=st.integers(0, 700))
@settings(max_examples=60, deadline=None)
def test_counts_are_exact_after_every_step_and_at_every_draw(weights, per_step, first):
    steps = 80
    mix = ScheduledMix(weights, per_step)
    stream, number = mix.draws(0, steps * per_step)
    exact = cumulated(weights, steps, per_step)
    changes = max(w.steps[-1] for w in weights if isinstance(w, WeightSchedule))
    for which in range(len(weights)):
        counts = np.concatenate([[0], np.cumsum(stream == which)])
        after = counts[::per_step]
        # A part in 2**20 of each step's draws is what shares are rounded to.
        slack = 1e-6 * steps * per_step * len(weights)
        assert np.abs(after - exact[:, which])[: changes + 1].max() < 1 + slack
        at = np.arange(len(counts)) / per_step
        between = np.interp(at, np.arange(steps + 1), exact[:, which])
        assert np.abs(counts - between).max() < 2 + slack
        mine = number[stream == which]
        assert np.array_equal(mine, np.arange(len(mine)))  # each once, in order
    part = mix.draws(min(first, len(stream) - 1), 40)
    begin = min(first, len(stream) - 1)
    length = min(40, len(stream) - begin)
    assert np.array_equal(part[0][:length], stream[begin : begin + length])
    assert np.array_equal(part[1][:length], number[begin : begin + length])


@given(weights=mixes(), ranks=st.sampled_from([1, 2, 3, 4, 6]), step=st.integers(0, 90))
@settings(max_examples=30, deadline=None)
def test_ranks_and_resumes_change_nothing(weights, ranks, step):
    labels = [f"d{i}" for i in range(len(weights))]
    named = dict(zip(labels, weights, strict=True))
    sizes = dict.fromkeys(labels, 7)

    def draws(order, first, count):
        found = order.draws(first, count)
        return list(found)

    whole = draws(Order(sizes, named, 3, per_step=12), 12 * step, 12)
    fresh = Order(sizes, named, 3, per_step=12)  # a process that starts at this step
    shared = []
    for rank in range(ranks):
        part = rank_slice(12, rank, ranks)
        shared += draws(fresh, 12 * step + part.start, part.stop - part.start)
    assert shared == whole


def test_a_ramp_by_hand():
    """From 0 to 1 over 100 steps beside 1: the share of step s is w / (1 + w), w = s / 100."""
    mix = ScheduledMix([1.0, WeightSchedule(**RAMP)], 32)
    stream, _ = mix.draws(0, 32 * 400)
    drawn = np.cumsum(stream.reshape(400, 32).sum(axis=1))
    w = np.minimum(np.arange(400) / 100, 1)
    assert np.abs(drawn - np.cumsum(32 * w / (1 + w)))[:100].max() < 1
    assert (stream[:32] == 0).all()  # weight 0 is never drawn
    late = stream[32 * 200 :]
    assert abs(late.mean() - 0.5) < 1e-3


def test_hold_changes_at_once():
    weights = [1.0, WeightSchedule(points=((0, 0.0), (10, 3.0)), between="hold")]
    stream, _ = ScheduledMix(weights, 8).draws(0, 8 * 30)
    assert stream[:80].sum() == 0
    assert (stream[80:].reshape(-1, 8).sum(axis=1) == 6).all()


def test_batches_follow_the_schedule(datasets, tokenizer):
    config = DataConfig(text=TextData(batch_size=10, weights={"web": 1.0, "docs": RAMP}))
    loader = build_loader(
        config,
        {"text": datasets["text"]},
        seed=1,
        tokenizer=tokenizer,
        resources=LoaderResources(),
    )
    loader.batch(0)
    assert loader.report() == {"text.web.samples": 10}
    for step in range(100, 110):
        loader.batch(step)
    counts = loader.report()
    assert counts["text.docs.samples"] == 50
    assert counts["text.web.samples"] == 60


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"a": {"points": [[5, 1], [5, 2]]}}, "must increase"),
        ({"a": {"points": [[0, -1.0]]}}, "not negative"),
        ({"a": {"points": []}}, "at least 1"),
        ({"a": {"points": [[0, 1], [9, 0]]}, "b": 0.0}, "all 0 at step 9"),
        ({"a": {"points": [[3, 0], [9, 1]]}}, "all 0 at step 0"),
    ],
)
def test_what_makes_no_sense_is_refused(weights, words):
    with pytest.raises(ValidationError, match=words):
        TextData(weights=weights)


def test_an_empty_dataset_with_a_weight_at_any_step_is_refused():
    with pytest.raises(FoundryError, match="'b' is empty"):
        Order({"a": 3, "b": 0}, {"a": 1.0, "b": WeightSchedule(**RAMP)}, 0, per_step=4)
    falling = WeightSchedule(points=((0, 2.0), (9, 1.0)))
    Order({"a": 3, "b": 0}, {"a": falling, "b": 0.0}, 0, per_step=4)


def test_recipes_with_plain_weights_keep_their_identity():
    plain = canonical(TextData(weights={"a": 1, "b": 0.5}))
    assert json.loads(json.dumps(plain)) == {
        "batch_size": 32,
        "loss_weight": 1,
        "weights": {"a": 1, "b": 0.5},
    }


def test_a_loss_weight_is_a_function_of_the_step():
    assert TextData(loss_weight={"points": [[10, 1.0], [20, 0.0]]}).loss_weight.at(15) == 0.5
