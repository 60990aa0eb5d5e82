"""Order, mix and permutations as pure functions."""

import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.data.loading.mix import MAX_PERIOD, Mix
from foundry_core.data.loading.order import Order, rank_slice
from foundry_core.data.loading.permutation import Permutation
from foundry_core.errors import FoundryError


@given(st.integers(1, 3000), st.integers(0, 2**63))
@settings(max_examples=60, deadline=None)
def test_permutation_is_a_bijection(size: int, of: int) -> None:
    assert np.array_equal(np.sort(Permutation(size, of)(np.arange(size))), np.arange(size))


def test_permutation_needs_no_list_and_differs_between_keys() -> None:
    big = Permutation(10**15, 1)
    started = time.perf_counter()
    values = big(np.arange(10**15 - 1000, 10**15))
    assert time.perf_counter() - started < 0.5
    assert len(set(values.tolist())) == 1000 and values.max() < 10**15
    one, two = (Permutation(10_000, k)(np.arange(10_000)) for k in (1, 2))
    assert np.mean(one == two) < 0.01
    assert abs(np.corrcoef(one, np.arange(10_000))[0, 1]) < 0.05


def test_weight_one_against_zero_never_draws_the_second() -> None:
    stream, number = Mix([1.0, 0.0]).draws(0, 100_000)
    assert np.count_nonzero(stream == 1) == 0
    assert np.array_equal(number, np.arange(100_000))


def test_nine_to_one_is_within_one_at_every_prefix() -> None:
    stream, _ = Mix([0.9, 0.1]).draws(0, 100_000)
    n = np.arange(1, 100_001)
    for which, weight in ((0, 0.9), (1, 0.1)):
        assert np.abs(np.cumsum(stream == which) - n * weight).max() < 1


@given(st.lists(st.integers(0, 60), min_size=1, max_size=9).filter(any), st.integers(0, 5000))
@settings(max_examples=80, deadline=None)
def test_any_weights_within_one_at_every_prefix_from_anywhere(
    weights: list[int], first: int
) -> None:
    mix = Mix([w / 7 for w in weights])
    whole, numbers = mix.draws(0, first + 400)
    n = np.arange(1, len(whole) + 1)
    for which, share in enumerate(mix.weights):
        counts = np.cumsum(whole == which)
        assert np.abs(counts - n * float(share)).max() < 1
        assert np.array_equal(numbers[whole == which], np.arange(counts[-1]))
    part, part_numbers = mix.draws(first, 400)
    assert np.array_equal(part, whole[first:]) and np.array_equal(part_numbers, numbers[first:])


def test_awkward_weights_are_rounded_to_a_bounded_period() -> None:
    mix = Mix([math.pi, 1e-9, math.e])
    assert mix.period == MAX_PERIOD and sum(mix.weights) == 1
    assert mix.weights[1] == Fraction(1, MAX_PERIOD)
    assert float(mix.weights[0]) == pytest.approx(math.pi / (math.pi + math.e), abs=2e-5)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [-1.0, 2.0], [math.nan, 1.0], [math.inf]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(FoundryError):
        Mix(weights)


def test_all_ranks_together_see_each_sample_of_an_epoch_once() -> None:
    order = Order({"a": 37, "b": 91}, None, seed=3)
    assert order.epoch_length == 128
    seen = []
    for step in range(8):
        draws = order.draws(step * 16, 16)
        for rank in range(4):
            part = rank_slice(16, rank, 4)
            seen += zip(draws.dataset[part].tolist(), draws.sample[part].tolist(), strict=True)
    assert sorted(seen) == [(0, i) for i in range(37)] + [(1, i) for i in range(91)]


def test_each_weighted_dataset_goes_through_its_epochs() -> None:
    order = Order({"a": 10, "b": 1000}, {"a": 1, "b": 3}, seed=0)
    draws = order.draws(0, 400)
    first = draws.sample[(draws.dataset == 0) & (draws.epoch == 0)]
    second = draws.sample[(draws.dataset == 0) & (draws.epoch == 1)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()
    assert draws.epoch[draws.dataset == 0].max() == 9


def test_another_dataset_does_not_reshuffle_the_first() -> None:
    alone = Order({"a": 50}, {"a": 1}, seed=5).draws(0, 50).sample
    mixed = Order({"a": 50, "z": 9}, {"a": 1, "z": 1}, seed=5).draws(0, 100)
    assert np.array_equal(mixed.sample[mixed.dataset == 0], alone)
    other = Order({"a": 50}, {"a": 1}, seed=6).draws(0, 50).sample
    assert not np.array_equal(other, alone)


def test_position_a_million_steps_in_costs_nothing() -> None:
    order = Order({"a": 10**9, "b": 10**7}, {"a": 0.9, "b": 0.1}, seed=0)
    started = time.perf_counter()
    draws = order.draws(10**6 * 1024, 1024)
    assert time.perf_counter() - started < 0.2
    assert np.count_nonzero(draws.dataset == 1) in (102, 103)


def test_empty_datasets_and_odd_ranks_are_refused() -> None:
    with pytest.raises(FoundryError, match="'b' is empty"):
        Order({"a": 5, "b": 0}, {"a": 1.0, "b": 1.0}, seed=0)
    assert Order({"a": 5, "b": 0}, {"a": 1.0, "b": 0.0}, seed=0).draws(0, 5).dataset.max() == 0
    with pytest.raises(FoundryError, match="does not divide"):
        rank_slice(10, 0, 4)
