"""Which format a folder has is found by looking; formats of other packages are found too."""

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.results import base
from foundry_core.evaluation.results.base import read_results
from tests.evaluation.published import lbm_tree, put_vla, vla_document, vla_episode

OUTSIDE = """
from foundry_core.evaluation.results.base import ResultFile, ResultFormat
from foundry_core.evaluation.score import EpisodeResult

def find(root):
    return sorted(root.glob("*.points"))

def read(root, files):
    for path in files:
        wins = path.read_text().split()
        episodes = [
            EpisodeResult(task="t", scenario=i, success=w == "1") for i, w in enumerate(wins)
        ]
        yield ResultFile(path=path, model=path.stem, budget=len(wins), episodes=episodes)

RESULTS = ResultFormat(form="<model>.points", find=find, read=read)
"""


def test_formats_are_told_apart(tmp_path):
    assert read_results(lbm_tree(tmp_path / "a", {"m": 3}, n=4)).format == "lbm"
    put_vla(tmp_path / "b", vla_document({"push": [vla_episode(0)]}))
    assert read_results(tmp_path / "b").format == "vla-eval"
    with pytest.raises(FoundryError, match=r"several formats: .*results\.json \(lbm\), .*vla-eval"):
        read_results(tmp_path)


@pytest.mark.parametrize("name", ["empty", "missing", "file.txt"])
def test_no_results_name_what_was_expected(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(FoundryError, match=r"no results at .*LBM Eval.*_aggregate\.json"):
        read_results(tmp_path / name)


def test_a_format_of_another_package(tmp_path, install_member):
    install_member("foundry.result_formats", "points", OUTSIDE)
    (tmp_path / "trees").mkdir()
    (tmp_path / "trees" / "ours.points").write_text("1 0 1")
    results = read_results(tmp_path / "trees")
    assert (results.format, results.facts["ours"].episodes_per_task) == ("points", 3)
    assert results.evaluations()["ours"].outcomes == {"t": {0: True, 1: False, 2: True}}


def test_a_file_beyond_all_bounds_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "_MOST_BYTES", 100)
    lbm_tree(tmp_path, {"m": 3})
    with pytest.raises(FoundryError, match=r"results\.json has more than"):
        read_results(tmp_path)


def test_budgets_have_a_bound_too(tmp_path):
    """A sequential design is laid out over the budget."""
    (path,) = lbm_tree(tmp_path, {"m": 1}, tasks=("a",), n=2).rglob("results.json")
    text = path.read_text()
    path.write_text(
        text.replace('"max_sample_size_per_model": 2', f'"max_sample_size_per_model": {10**12}')
    )
    with pytest.raises(FoundryError, match="max_sample_size_per_model: Input should be less"):
        read_results(tmp_path)
