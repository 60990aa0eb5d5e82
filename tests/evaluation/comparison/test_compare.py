from dataclasses import replace

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.comparison.plots import curves, response, success_bars
from foundry_core.evaluation.comparison.report import (
    Filmstrip,
    ReportData,
    verdict,
    write_comparison,
    write_report,
)
from foundry_core.evaluation.comparison.result import read_comparison
from foundry_core.evaluation.comparison.tables import markdown, p_text, score_text
from foundry_core.evaluation.score import Score
from foundry_core.evaluation.statistics.families import compact_letters
from foundry_core.evaluation.statistics.fixed import Arms, barnard, mcnemar
from foundry_core.evaluation.statistics.intervals import clopper_pearson


def score(successes, n=25, crashed=0):
    return Score(n=n, successes=successes, crashed=crashed)


EVALUATIONS = {
    "policy": {"open": score(24), "pull": score(22)},
    "blind": {"open": score(4), "pull": score(8)},
    "untrained": {"open": score(0), "pull": score(0, crashed=1)},
}


def test_known_values():
    assert clopper_pearson(145, 200, 0.90) == pytest.approx((0.668265, 0.776667), abs=1e-6)
    assert clopper_pearson(0, 200, 0.90) == pytest.approx((0, 0.014867), abs=1e-6)
    assert clopper_pearson(160, 200) == pytest.approx((0.737774, 0.853106), abs=1e-6)
    assert barnard(Arms(s1=7, n1=10, s0=2, n0=10), "greater") == pytest.approx(0.020695, abs=1e-6)
    assert mcnemar(5, 0) == pytest.approx(2 * 0.5**5)
    pairs = [("a", "c"), ("a", "d"), ("b", "d")]
    assert compact_letters("abcd", pairs) == {"a": "a", "b": "ab", "c": "bc", "d": "c"}


def test_base_against_every_other():
    found = compare(EVALUATIONS, "policy")
    assert found.labels == ["policy", "blind", "untrained"]
    assert found.pooled["policy"].counted.successes == 46
    assert found.against_base["blind"].decision == "worse than the base"
    assert found.against_base["blind"].p_corrected < 1e-9
    assert found.letters == {"policy": "a", "blind": "b", "untrained": "c"}
    assert compare(EVALUATIONS, "blind").against_base["policy"].decision.startswith("better")


def test_equal_policies_share_a_letter():
    same = {"a": {"t": score(12)}, "b": {"t": score(13)}}
    found = compare(same, "a")
    assert found.letters == {"a": "a", "b": "a"}
    assert found.against_base["b"].decision == "not separated from the base"


def test_only_common_tasks_are_pooled_and_the_rest_is_named():
    extra = EVALUATIONS | {"blind": EVALUATIONS["blind"] | {"push": score(25)}}
    found = compare(extra, "policy")
    assert found.left_out == ["push"]
    assert found.pooled["blind"].counted.n == 50
    with pytest.raises(FoundryError, match="share no task"):
        compare({"a": {"x": score(1)}, "b": {"y": score(1)}}, "a")
    with pytest.raises(FoundryError, match="base 'c' is not among"):
        compare(EVALUATIONS, "c")


def test_a_rate_never_stands_alone():
    found = compare(EVALUATIONS, "policy")
    text = score_text(found.scores["pull"]["untrained"])
    assert text == "0/25  0 % [0, 14], 1 crashed"
    assert "24/25  96 % [80, 100]" in markdown(found)
    assert p_text(0.0123) == "0.012"
    assert p_text(1.5e-9) == "1.5e-09"


def test_report_is_one_readable_page(tmp_path):
    found = compare(EVALUATIONS, "policy")
    data = ReportData(
        title="demo <1>",
        run_id="run-1",
        comparison=found,
        stages=[["llm", "train_llm", "abc", "run", "", "1"]],
        losses={"llm": {"loss": [(0, 3.0), (10, 1.5)]}},
        filmstrips=[Filmstrip(label="policy", caption="open 0 success", png=b"\x89PNG\r\n\x1a\n")],
        lineage_svg="<svg></svg>",
        provenance={"code": "abc"},
        commands=["foundry plan demo"],
    )
    other = write_report(tmp_path / "other.html", replace(data, unequal=["tasks"])).read_text()
    assert "the policies met different ones (tasks)" in other
    page = write_report(tmp_path / "report.html", data).read_text()
    assert "every policy met the same ones" in page
    assert "demo &lt;1&gt;" in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert page.count("data:image/png;base64,") == 1
    assert verdict(found) in page.replace("&#x27;", "'").replace("&quot;", '"')
    assert "46 of 50 episodes (92 %, 95 % interval" in verdict(found)
    assert "32 points" not in verdict(found)


def test_pictures_are_equal_for_equal_numbers_and_follow_the_page():
    found = compare(EVALUATIONS, "policy")
    bars = success_bars(found)
    assert bars == success_bars(compare(EVALUATIONS, "policy"))
    assert bars.startswith("<svg")
    assert bars.endswith("</svg>\n")
    for part in ("policy", "untrained", "all tasks", "100 %", "var(--ink, #1a202c)"):
        assert part in bars
    assert "http" not in bars.replace("http://www.w3.org/", "")
    lines = curves("losses of <llm>", {"loss": [(0, 1.0), (5, 0.5)]})
    assert "losses of &lt;llm&gt;" in lines
    assert "<title>empty</title>" in curves("empty", {})
    assert "model.x" in response("model.x", [(1, 0.2, 0.1, 0.4), (64, 0.9, 0.7, 1.0)])


def test_files_hold_what_was_found(tmp_path):
    found = compare(EVALUATIONS | {"blind": EVALUATIONS["blind"] | {"push": score(25)}}, "policy")
    metrics = write_comparison(tmp_path, found)
    assert metrics["success_policy"] == 0.92
    assert metrics["n_blind"] == 50
    assert metrics["p_untrained"] == found.against_base["untrained"].p_corrected
    assert read_comparison(tmp_path / "comparison.json") == found
    assert (tmp_path / "table.md").read_text() == markdown(found)
    assert (tmp_path / "success.svg").read_text() == success_bars(found)
    (tmp_path / "comparison.json").write_text('{"base": "a"}')
    with pytest.raises(FoundryError, match="is of another form"):
        read_comparison(tmp_path / "comparison.json")
