"""What exams found of the models stands beside a comparison, and changes none of it."""

import io

from rich.console import Console

from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.comparison.report import ReportData, write_comparison, write_report
from foundry_core.evaluation.comparison.result import read_comparison
from foundry_core.evaluation.comparison.tables import markdown, terminal_tables
from foundry_core.evaluation.comparison.upstream import TITLE, with_quality
from foundry_core.evaluation.quality import Quality, mean, share
from foundry_core.evaluation.score import Evaluation

POLICIES = {
    name: Evaluation(budget=20, outcomes={"open": {i: i < count for i in range(20)}})
    for name, count in (("policy", 15), ("blind", 4))
}
EXAM = Quality(
    measures=[
        share("captions", "exact", [True, False]),
        mean("captions", "token_f1", [0.5, 0.7]),
        mean("captions/hand", "pixel_error_px", [3.0, 4.0]),
        mean("text", "byte_perplexity", [2.0]),
    ]
)


def test_measures_are_shown_and_never_tested(tmp_path):
    alone = compare(POLICIES, "policy")
    found = with_quality(alone, {"vlm": EXAM})
    assert (found.differences, found.letters) == (alone.differences, alone.letters)
    write_comparison(tmp_path, found)
    assert read_comparison(tmp_path / "comparison.json") == found
    data = ReportData(title="t", run_id="r", comparison=found, stages=[], losses={})
    page = write_report(tmp_path / "report.html", data).read_text()
    out = io.StringIO()
    console = Console(file=out, width=200)
    for one in terminal_tables(found, 200):
        console.print(one)
    for shown in (markdown(found), page, out.getvalue()):
        assert TITLE in shown
        assert "0.5 [0.01258, 0.9874], n 2" in shown
        # Points of grounding and what follows from other measures are in quality.json.
        assert "token_f1" in shown and "pixel_error_px" not in shown and "perplexity" not in shown
    assert TITLE not in markdown(alone)


def test_an_earlier_comparison_without_measures_is_read(tmp_path):
    import json

    write_comparison(tmp_path, compare(POLICIES, "policy"))
    path = tmp_path / "comparison.json"
    stated = json.loads(path.read_text())
    del stated["quality"]
    path.write_text(json.dumps(stated))
    assert read_comparison(path).quality == {}
