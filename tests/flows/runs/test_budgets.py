"""Budgets of one recipe that run together: each begins where the one before it branched off."""

import pytest
import yaml

from flows.ablation.plan import plan_ablation
from flows.ablation.run import AblationRun
from flows.ablation.table import plan_notes
from flows.ablation.variants import AblationRequest, parse_vary
from flows.runs.engine import PipelineRun
from flows.runs.local import walk_in_threads
from flows.runs.planning import Request, prepare
from flows.runs.walk import After, Ended, StagesFailed
from foundry_core.lineage import queries
from tests.support import WORDS

BUDGETS = WORDS.with_name("budgets.yaml")


@pytest.fixture(autouse=True)
def home(small_home):
    return small_home


def pipeline(folder, **models):
    """A file of trainings on one text; models: stage → recipe, or (recipe, resources)."""
    stages = {"text": {"kind": "emit", "recipe": {"word": "one", "lines": 3}}}
    for name, said in models.items():
        recipe, resources = said if isinstance(said, tuple) else (said, {})
        inputs = {"text": "text"}
        stages[name] = {"kind": "grow", "inputs": inputs, "recipe": recipe, "resources": resources}
    path = folder / "p.yaml"
    path.write_text(yaml.safe_dump({"name": "p", "seed": 3, "stages": stages}))
    return prepare(Request(pipeline=str(path)))


def continues(prepared):
    return {
        name: (row.continues.stage, row.continues.step)
        for name, row in prepared.plan.stages.items()
        if row.continues
    }


def test_the_shortest_is_first_whatever_the_order(tmp_path):
    prepared = pipeline(
        tmp_path, a={"steps": 40}, b={"steps": 10}, c={"steps": 20}, other={"rate": 0.3}
    )
    assert continues(prepared) == {"a": ("c", 18), "c": ("b", 8)}
    assert prepared.plan.stages["a"].continues.sentence() == "continues c from step 18 of 40"
    assert PipelineRun(prepared).affected() == ["text", "b", "c", "a", "other"]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"keep_trunk": False}, {"a": ("b", 8), "c": ("b", 8)}),
        ({"extend": "never"}, {"a": ("c", 18)}),
        ({"cpus": 2}, {"a": ("b", 8)}),
        ({"cpus": 2, "extend": "close"}, {"a": ("b", 8), "c": ("b", 8)}),
    ],
)
def test_who_leaves_nothing_or_rounds_otherwise_is_passed_over(tmp_path, resources, expected):
    prepared = pipeline(tmp_path, a={"steps": 40}, b={"steps": 10}, c=({"steps": 20}, resources))
    assert continues(prepared) == expected


def test_who_asks_for_close_takes_what_rounds_otherwise(tmp_path):
    """What c leaves has steps of both: d is exact, and would have to be like all of them."""
    close = {"cpus": 2, "extend": "close"}
    prepared = pipeline(
        tmp_path,
        b={"steps": 10},
        c=({"steps": 20}, close),
        d=({"steps": 30}, {"cpus": 2}),
        e=({"steps": 40}, {"cpus": 3, "extend": "close"}),
    )
    assert continues(prepared) == {"c": ("b", 8), "e": ("d", 28)}
    assert prepared.plan.stages["c"].continues.differs == ("threads 1, now 2",)


def test_what_is_in_the_store_counts_where_it_is_further(tmp_path):
    run = PipelineRun(pipeline(tmp_path, a={"steps": 20}))
    run.start()
    run.walk()
    run.finish("succeeded")
    prepared = pipeline(tmp_path, b={"steps": 10}, c={"steps": 30})
    assert continues(prepared) == {"c": ("", 18)}
    assert prepared.plan.stages["c"].continues.key == run.artifact("a").key


def test_it_is_waited_for_and_its_failure_stops_nobody(tmp_path):
    prepared = pipeline(tmp_path, a={"steps": 40}, b={"steps": 10, "fail": True})
    run = PipelineRun(prepared)
    run.start()
    with pytest.raises(StagesFailed, match=r"stages not completed: b$"):
        walk_in_threads(run)
    assert run.artifact("a").metrics["first"] == 0
    run.finish("failed")
    assert After(Ended(False)).completed()


def test_a_sweep_over_budgets_does_the_work_of_the_longest(capsys):
    """Seeds have chains of their own."""
    request = AblationRequest(
        pipeline=str(BUDGETS), vary=(parse_vary("model.steps=20,40"),), seeds=2
    )
    planned = plan_ablation(request)
    notes = "\n".join(plan_notes(planned))
    assert "steps=20/0:model continues base/0:model from step 8 of 20" in notes
    assert "steps=40/1:model continues steps=20/1:model from step 18 of 40" in notes
    ablation = AblationRun(planned)
    ablation.start()
    walk_in_threads(ablation)
    result = ablation.finish("succeeded")
    assert result["status"] == "succeeded"
    first = {
        name: value for name, value in result["metrics"].items() if name.endswith("model.first")
    }
    assert sorted(first.values()) == [0, 0, 8, 8, 18, 18]
    again = plan_ablation(request)
    assert [row.action for row in again.merged.plan.stages.values()] == ["reuse"] * 14
    _, edges = queries.graph_of(queries.connect(), ablation.ablation_id)
    assert "continued from step 18" in {edge["label"] for edge in edges}


@pytest.mark.slow("a run through a Prefect server")
def test_prefect_waits_for_it_too_and_lets_it_fail(tmp_path):
    import flows

    path = tmp_path / "p.yaml"
    pipeline(tmp_path, a={"steps": 40}, b={"steps": 10}, c={"steps": 20, "fail": True})
    result = flows.run(str(path), quiet=True)
    stages = {row["name"]: row for row in result["stages"]}
    assert (result["status"], stages["c"]["error"] is None) == ("failed", False)
    # `c` fails after its branch, and so leaves nothing: `a` goes on from `b`.
    assert result["metrics"]["a.first"] == 8
