from dataclasses import replace

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.compare import cell_text, compare, markdown, p_text
from foundry_core.evaluation.comparison.plots import curves, success_bars
from foundry_core.evaluation.comparison.report import ReportData, verdict, write_report
from foundry_core.evaluation.statistics.fixed import Arms, barnard, mcnemar
from foundry_core.evaluation.statistics.intervals import clopper_pearson
from foundry_core.evaluation.statistics.letters import compact_letters


def cell(successes, n=25, crashed=0):
    return {"n": n, "successes": successes, "crashed": crashed}


EVALUATIONS = {
    "policy": {"open": cell(24), "pull": cell(22)},
    "blind": {"open": cell(4), "pull": cell(8)},
    "untrained": {"open": cell(0), "pull": cell(0, crashed=1)},
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
    assert found["labels"] == ["policy", "blind", "untrained"]
    assert found["pooled"]["policy"]["successes"] == 46
    assert found["against_base"]["blind"]["decision"] == "worse than the base"
    assert found["against_base"]["blind"]["p_corrected"] < 1e-9
    assert found["letters"] == {"policy": "a", "blind": "b", "untrained": "c"}
    assert compare(EVALUATIONS, "blind")["against_base"]["policy"]["decision"].startswith("better")


def test_equal_policies_share_a_letter():
    same = {"a": {"t": cell(12)}, "b": {"t": cell(13)}}
    found = compare(same, "a")
    assert found["letters"] == {"a": "a", "b": "a"}
    assert found["against_base"]["b"]["decision"] == "not separated from the base"


def test_only_common_tasks_are_pooled_and_the_rest_is_named():
    extra = EVALUATIONS | {"blind": EVALUATIONS["blind"] | {"push": cell(25)}}
    found = compare(extra, "policy")
    assert found["left_out"] == ["push"]
    assert found["pooled"]["blind"]["n"] == 50
    with pytest.raises(FoundryError, match="share no task"):
        compare({"a": {"x": cell(1)}, "b": {"y": cell(1)}}, "a")
    with pytest.raises(FoundryError, match="base 'c' is not among"):
        compare(EVALUATIONS, "c")


def test_a_rate_never_stands_alone():
    found = compare(EVALUATIONS, "policy")
    text = cell_text(found["cells"]["pull"]["untrained"])
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
        stages=[
            {
                "stage": "llm",
                "kind": "train_llm",
                "key": "abc",
                "action": "run",
                "why": "",
                "seconds": "1",
            }
        ],
        losses={"llm": {"loss": [(0, 3.0), (10, 1.5)]}},
        strips=[("policy", "open 0 success", b"\x89PNG\r\n\x1a\n")],
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
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count("data:image/png;base64,") == 1
    assert verdict(found) in page.replace("&#x27;", "'").replace("&quot;", '"')
    assert "46 of 50 episodes (92 %, 95 % interval" in verdict(found)
    assert "32 points" not in verdict(found)
    assert success_bars(found).count("<title>") == 1 + 3 * 3
    assert "polyline" in curves("loss", {"loss": [(0, 1.0), (5, 0.5)]})
