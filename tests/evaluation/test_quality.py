"""Measures: known values of shares, means and ratios, and the files they are kept in."""

import json
import math

import pytest

from foundry_core.evaluation.quality import (
    Measure,
    interval_text,
    mapped,
    mean,
    ratio,
    read_quality,
    share,
    write_quality,
)


def test_a_share_has_the_exact_interval():
    found = share("t", "acc", [True] * 9 + [False])
    assert (found.value, found.n) == (0.9, 10)
    # Clopper and Pearson, 9 of 10.
    assert (found.low, found.high) == (
        pytest.approx(0.55498, abs=1e-5),
        pytest.approx(0.99747, abs=1e-5),
    )


def test_a_mean_has_students_interval():
    found = mean("t", "f1", [11.0, 12.0, 13.0])
    # t(0.975, 2) = 4.302653; standard error 1 / sqrt(3).
    assert found.value == 12
    assert found.high - 12 == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert 12 - found.low == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)


def test_an_interval_ends_where_its_measure_does():
    """Of .9, 1, 1 the mean is 29/30 and t(2) times its standard error .1434."""
    found = mean("t", "f1", [0.9, 1.0, 1.0], most=1.0)
    assert (found.low, found.high) == (pytest.approx(0.8232, abs=1e-4), 1.0)
    assert mean("t", "error_cm", [0.0, 0.0, 9.0]).low == 0.0


def test_a_ratio_is_of_sums_and_its_interval_of_the_residuals():
    found = ratio("t", "bits", [2.0, 12.0], [1.0, 3.0])
    assert found.value == 3.5
    # Residuals -1.5 and 1.5: error sqrt(2 * 4.5) / 4; t(0.975, 1) = 12.7062.
    assert found.high - 3.5 == pytest.approx(12.7062 * math.sqrt(9) / 4, abs=1e-4)


def test_nothing_and_one_answer():
    assert share("t", "acc", []) == Measure(task="t", name="acc", value=None, n=0)
    one = mean("t", "f1", [0.5])
    assert (one.value, one.low, one.high) == (0.5, None, None)
    assert mean("t", "f1", []).value is None
    assert interval_text(share("t", "acc", [])) == "no answer"
    assert interval_text(one) == "0.5, n 1"


def test_a_function_maps_the_interval_too():
    found = mapped(Measure(task="t", name="a", value=0.0, n=2, low=-1.0, high=1.0), "b", math.exp)
    assert (found.name, found.value, found.high) == ("b", 1.0, math.e)


def test_what_is_written_is_read(tmp_path):
    measures = [share("a", "acc", [True, False]), mean("b", "f1", [])]
    metrics = write_quality(tmp_path, tmp_path / "records", {"model": "m"}, measures, [{"x": 1}])
    assert metrics == {"a/acc": 0.5}
    assert list(read_quality(tmp_path).measures) == measures
    assert json.loads((tmp_path / "answers.jsonl").read_text()) == {"x": 1}
    rows = [json.loads(line) for line in (tmp_path / "records" / "measures.jsonl").open()]
    assert rows[0]["n"] == 2 and rows[1]["value"] is None
