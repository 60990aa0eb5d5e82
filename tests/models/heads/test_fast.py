import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct

from foundry_core.errors import FoundryError
from foundry_core.models.heads.fast import FastHeadConfig
from foundry_core.models.heads.networks.pieces import (
    Learnt,
    Pieces,
    actions_of,
    coefficients,
    cosines,
    learn,
)


def test_the_transform_is_scipy_s():
    x = np.random.default_rng(0).normal(size=(8, 3))
    np.testing.assert_allclose(cosines(8) @ x, dct(x, axis=0, norm="ortho"), atol=1e-12)


def test_known_coefficients():
    """A constant is its first wave alone, √K times as high; waves stand before dimensions."""
    chunk = np.zeros((1, 4, 2))
    chunk[0, :, 0], chunk[0, :, 1] = 0.5, -0.25
    assert coefficients(chunk, 10).tolist() == [[10, -5, 0, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(actions_of(coefficients(chunk, 10), 4, 10), chunk, atol=1e-7)


def test_rounding_costs_at_most_half_a_step_of_each_wave():
    chunks = np.random.default_rng(1).uniform(-1.5, 1.5, size=(50, 8, 7))
    back = actions_of(coefficients(chunks, 10), 8, 10)
    errors = np.linalg.norm(back - chunks, axis=1)
    assert errors.max() <= 0.05 * math.sqrt(8)


def test_known_merges():
    """1 2 occurs four times, then (1 2) 3 twice; of equals the lower pair is first."""
    rows = np.array([[1, 2, 3, 1, 2, 3], [1, 2, 0, 1, 2, 0]])
    learnt = learn(rows, 6)
    assert learnt == Learnt(low=0, high=3, merges=((1, 2), (4, 0)))
    pieces = Pieces(learnt)
    assert pieces.encode([1, 2, 3, 1, 2, 0]) == [4, 3, 5]
    assert pieces.decode([4, 3, 5], 6) == [1, 2, 3, 1, 2, 0]


def test_runs_of_one_number_merge_from_the_left():
    learnt = learn(np.array([[5] * 5, [5] * 5]), 3)
    assert learnt.merges == ((0, 0), (1, 0))
    assert Pieces(learnt).encode([5] * 5) == [1, 2]


@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=8),
    st.integers(7, 40),
)
def test_whatever_was_learnt_comes_back_exactly(rows, pieces):
    made = Pieces(learn(np.array(rows), pieces))
    for row in rows:
        tokens = made.encode(row)
        assert made.decode(tokens, 6) == row
        assert len(tokens) <= 6


def test_what_is_missing_rests_and_what_is_too_much_is_cut():
    pieces = Pieces(learn(np.array([[-1, 0, 1, 2]]), 8))
    assert pieces.decode([0], 4) == [-1, 0, 0, 0]
    assert pieces.decode([3, 3, 3, 3, 3], 4) == [2, 2, 2, 2]
    assert pieces.decode([7, 0], 2) == [-1, 0]  # a token that was never learnt
    assert pieces.decode(pieces.encode([9, -9, 0, 0]), 4) == [2, -1, 0, 0]


def test_smooth_chunks_are_short():
    time = np.linspace(0, 1, 8)[:, None]
    ends = np.random.default_rng(2).uniform(-1, 1, size=(300, 1, 4))
    config = FastHeadConfig(pieces=256).fitted(ends * time)
    pieces = Pieces(Learnt(config.low, config.high, config.merges))
    lengths = [len(pieces.encode(row)) for row in coefficients(ends * time, 10).tolist()]
    assert np.mean(lengths) < 16  # of 32 elements
    assert FastHeadConfig.model_validate_json(config.model_dump_json()) == config
    assert (FastHeadConfig().fitted_on, config.fitted_on) == (2000, 0)


def test_too_few_pieces_for_the_numbers_themselves():
    with pytest.raises(FoundryError, match="take 31 values from -10 to 20"):
        learn(np.array([[-10, 20]]), 30)
