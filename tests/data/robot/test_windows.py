"""Windows: published counts and masks, padding rules, agreement with a step-by-step reading."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.data.config import WindowConfig
from foundry_core.data.robot.windows import (
    anchors,
    cut_windows,
    image_steps,
    source_steps,
    window_masks,
)
from foundry_core.errors import FoundryError

LBM = WindowConfig(past=1, future=14, max_padding_left=3, max_padding_right=12)


@pytest.mark.parametrize(("length", "kept"), [(20, 18), (12, 10), (124, 122), (1, 0)])
def test_kept_anchors_of_the_lbm_preset(length, kept):
    assert len(anchors(length, LBM)) == kept


def test_masks_near_the_end():
    past, future = window_masks(12, np.array([9]), LBM)
    assert "".join(map(str, past[0].astype(int))) == "1000000000000000"
    assert "".join(map(str, future[0].astype(int))) == "0111000000000000"


def test_paddings():
    lowdim = {"x": np.arange(3.0)[:, None]}
    for padding, expected in {
        "copy": [0, 0, 0, 1, 2, 2, 2, 2],
        "zero": [0, 0, 0, 1, 2, 0, 0, 0],
        "reflect": [2, 1, 0, 1, 2, 1, 0, 1],
    }.items():
        window = WindowConfig(
            past=2, future=5, max_padding_left=9, max_padding_right=9, padding=padding
        )
        cut, past, future = cut_windows(lowdim, np.array([0]), window)
        assert cut["x"][0, :, 0].tolist() == expected, padding
        assert not past.any() and future[0].tolist() == [False] * 2 + [True] * 3 + [False] * 3


def test_images_are_clamped_never_invented():
    assert image_steps(5, np.array([0, 4]), (-1, 0, 2)).tolist() == [[0, 0, 2], [3, 4, 4]]


def test_ragged_fields_are_refused():
    with pytest.raises(FoundryError, match="differ in length"):
        cut_windows({"a": np.zeros((3, 1)), "b": np.zeros((4, 1))}, np.array([0]), LBM)


windows = st.builds(
    WindowConfig,
    past=st.integers(0, 6),
    future=st.integers(0, 9),
    max_padding_left=st.integers(0, 7),
    max_padding_right=st.integers(0, 10),
    padding=st.sampled_from(["copy", "zero", "reflect"]),
    stride=st.integers(1, 4),
)


@settings(max_examples=300, deadline=None)
@given(length=st.integers(1, 25), window=windows)
def test_vectorised_cut_equals_a_plain_loop(length, window):
    values = np.arange(1, length + 1, dtype=np.float64)[:, None] * [1.0, 10.0]
    kept = anchors(length, window)
    plain = [
        a
        for a in range(0, length, window.stride)
        if max(0, window.past - a) <= window.max_padding_left
        and max(0, a + window.future - length + 1) <= window.max_padding_right
    ]
    assert kept.tolist() == plain
    cut, past, future = cut_windows({"x": values}, kept, window)
    assert cut["x"].shape == (len(plain), window.length, 2)
    for row, anchor in enumerate(plain):
        for place in range(window.length):
            step = anchor - window.past + place
            inside = 0 <= step < length
            assert past[row, place] == (inside and place < window.past)
            assert future[row, place] == (inside and place >= window.past)
            if inside:
                assert (cut["x"][row, place] == values[step]).all()
            elif window.padding == "zero":
                assert (cut["x"][row, place] == 0).all()
            elif window.padding == "copy":
                assert (cut["x"][row, place] == values[min(max(step, 0), length - 1)]).all()
            else:
                while not 0 <= step < length and length > 1:
                    step = -step if step < 0 else 2 * (length - 1) - step
                assert (cut["x"][row, place] == values[step if length > 1 else 0]).all()


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 25), window=windows)
def test_sources_of_real_steps_are_themselves(length, window):
    kept = anchors(length, window)
    past, future = window_masks(length, kept, window)
    sources = source_steps(length, kept, window)
    steps = kept[:, None] + np.arange(-window.past, window.future + 1)
    assert (sources[past | future] == steps[past | future]).all()
    assert (past & future).sum() == 0
