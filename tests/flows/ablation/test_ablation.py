"""Ablations of a small pipeline: planned as one graph, executed, judged, recorded."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.ablation.plan import plan_ablation
from flows.ablation.report import responses, write_ablation_report
from flows.ablation.run import AblationRun
from flows.ablation.table import plan_json, plan_markdown, plan_rows
from flows.ablation.variants import AblationRequest, Vary, parse_variant, parse_vary
from flows.ablation.verdict_table import effects_rows
from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from flows.runs.walk import StagesFailed
from foundry_core.errors import FoundryError
from foundry_core.lineage import queries
from foundry_core.lineage.event_types import RunFinished
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index

EXAMS = Path(__file__).parents[2] / "kinds" / "exams_here.yaml"
CLI = [sys.executable, "-m", "flows.cli"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    return tmp_path / "home"


def planned(*vary, variants=(), **options):
    return plan_ablation(
        AblationRequest(
            pipeline=str(EXAMS),
            vary=tuple(parse_vary(text) for text in vary),
            variants=tuple(parse_variant(text) for text in variants),
            **options,
        )
    )


def execute(*vary, **options):
    """Stage after stage, without Prefect."""
    ablation = AblationRun(planned(*vary, **options))
    ablation.start()
    try:
        ablation.walk()
    except StagesFailed:
        return ablation.finish("failed")
    return ablation.finish("succeeded")


def built(result):
    return [stage["name"] for stage in result["stages"] if stage["attempt"]]


def test_equal_stages_are_there_once_in_the_merged_graph():
    ablation = planned("model.steps=5,10", seeds=2)
    assert list(ablation.merged.plan.stages) == [
        "base/0:text",
        "base/0:model",
        "base/0:exam",
        "base/1:model",
        "base/1:exam",
        "steps=10/0:model",
        "steps=10/0:exam",
        "steps=10/1:model",
        "steps=10/1:exam",
        "verdict",
    ]
    keys = [row.key for row in ablation.merged.plan.stages.values()]
    assert len(set(keys)) == len(keys)
    assert ablation.notes == ("steps=5 is the same as base",)
    assert ablation.changes["steps=10"] == (("model.steps", 5, 10),)


def test_the_plan_names_reasons_in_the_pipelines_own_words():
    ablation = planned("model.steps=10", variants=["late:exam.first_scenario=0,model.rate=0.3"])
    header, *body = plan_rows(ablation)
    assert header == ["variant", "model", "exam", "why"]
    assert [row[0] for row in body] == ["base", "steps=10", "late"]
    assert body[1][-1] == "model.steps: 5 → 10"
    assert body[2][-1] == "model.rate: 0.1 → 0.3"
    assert "shared by all: text (run)" in plan_markdown(ablation)
    found = plan_json(ablation)
    assert [s["shared_with"] for s in found["seed_runs"][1]["stages"]] == ["base", None, None]
    json.dumps(found)


def test_what_was_built_otherwise_is_built_again_where_an_ablation_is_strict():
    def model(**options):
        request = AblationRequest(
            pipeline=str(EXAMS.with_name("budgets.yaml")),
            overrides=(("model.resources.cpus", 2),),
            variants=(parse_variant("strict:exam.pass_mark=2"),),
            **options,
        )
        return plan_ablation(request).merged.plan.stages["base:model"]

    under_way = PipelineRun(prepare(Request(pipeline=str(EXAMS.with_name("budgets.yaml")))))
    under_way.start()
    under_way.walk()
    loose = model()
    assert loose.action == "reuse"
    assert [reason.sentence() for reason in loose.reasons] == ["built with threads 1, now 2"]
    assert model(strict_env=True).action == "run"


def test_a_change_of_the_evaluation_shares_the_model():
    found = plan_rows(planned(variants=["strict:exam.pass_mark=2"]))
    assert found == [
        ["variant", "exam", "why"],
        ["base", "run", "never built"],
        ["strict", "run", "exam.pass_mark: 0 → 2"],
    ]


def test_shared_stages_run_once_then_everything_is_known():
    first = execute("model.steps=10,20")
    assert first["status"] == "succeeded"
    assert len(built(first)) == len(first["stages"]) == 1 + 3 * 2 + 1
    again = execute("model.steps=10,20")
    assert built(again) == []
    assert again["effects"] == first["effects"]
    assert again["comparison_key"] == first["comparison_key"]
    more = execute("model.steps=10,20,40")
    assert built(more) == ["steps=40:model", "steps=40:exam", "verdict"]
    assert built(execute("model.steps=10,20")) == []


def test_the_verdict_orders_variants_and_letters_tell_them_apart():
    result = execute("model.steps=10,40")
    rows = {row["variant"]: row for row in result["effects"]}
    assert rows["base"]["success"] > rows["steps=10"]["success"] > rows["steps=40"]["success"]
    assert rows["steps=40"]["decision"] == "worse than the base (these policies)"
    assert rows["steps=40"]["p_value"] < 0.001
    assert (rows["steps=40"]["path"], rows["steps=40"]["old"], rows["steps=40"]["new"]) == (
        "model.steps",
        5,
        40,
    )
    assert not set(rows["base"]["letters"]) & set(rows["steps=40"]["letters"])
    assert rows["base"]["low"] < rows["base"]["success"] < rows["base"]["high"]
    assert rows["base"]["n"] == 80


def test_lineage_has_a_run_per_replicate_and_rebuilds_to_the_same_rows(home):
    result = execute("model.steps=10", seeds=2)
    connection = queries.connect()
    rows = queries.sql(connection, "from run_summary order by run_id")
    assert len(rows) == 1 + 4
    by_variant = {row["variant"]: row for row in rows if row["variant"]}
    assert by_variant.keys() == {"base", "steps=10"}
    assert by_variant["steps=10"]["scores"]["exam"]["n"] == 80
    variants = queries.sql(connection, "from ablation_variant order by position")
    assert [len(row["runs"]) for row in variants] == [2, 2]
    assert variants[1]["overrides"] == [["model.steps", 10]]
    (ablation,) = queries.sql(connection, "from ablation")
    assert ablation["ablation_id"] == result["ablation_id"]
    assert (ablation["status"], ablation["seeds"]) == ("succeeded", 2)
    shared = next(r["run_id"] for r in rows if r["variant"] == "steps=10")
    stages = {s["stage"]: s["action"] for s in queries.show(connection, shared)["stages"]}
    assert stages == {"text": "reuse", "model": "run", "exam": "run"}
    ask = {
        name: f"select * from {name} order by all"
        for name in ("ablation", "ablation_variant", "ablation_effects", "run_stage")
    }
    before = {name: queries.sql(connection, query) for name, query in ask.items()}
    assert all(before.values())
    connection.close()
    (home / "lineage.duckdb").unlink()
    Index(home / "lineage.duckdb", EventLog(home / "store" / "events")).rebuild()
    connection = queries.connect()
    assert {name: queries.sql(connection, query) for name, query in ask.items()} == before


def test_a_killed_ablation_ends_in_the_lineage_with_its_run(home):
    ablation = AblationRun(planned("model.steps=10"))
    ablation.start()
    # What the reaper records of a run whose process died: it knows nothing of ablations.
    events = EventLog(home / "store" / "events")
    events.append(RunFinished(run_id=ablation.ablation_id, status="lost"))
    Index(home / "lineage.duckdb", events).advance()
    connection = queries.connect()
    assert {row["status"] for row in queries.runs(connection)} == {"lost"}
    assert [row["status"] for row in queries.sql(connection, "from ablation")] == ["lost"]


def test_an_interruption_is_no_failure_of_a_variant():
    ablation = AblationRun(planned("model.steps=10"))
    ablation.start()
    for name in ("base:text", "base:model", "base:exam"):
        ablation.run.stage(name)
    result = ablation.finish("cancelled", "Ctrl-C")
    assert [r["status"] for r in result["seed_runs"]] == ["succeeded", "cancelled"]
    assert {row["decision"] for row in result["effects"]} == {
        "no verdict",
        "no verdict: was not reached",
    }


def test_variants_do_not_become_the_baseline_of_the_pipeline():
    execute("model.steps=10")
    why = plan_rows(planned("model.steps=20"))
    assert why[2][-1] == "model.steps: 5 → 20"


def test_a_failing_variant_costs_only_its_own_verdict():
    result = execute("model.steps=20", variants=["bad:exam.fail=true"])
    assert result["status"] == "partial"
    rows = {row["variant"]: row for row in result["effects"]}
    assert rows["steps=20"]["decision"] == "worse than the base (these policies)"
    assert rows["bad"]["success"] is None
    assert "told to fail" in rows["bad"]["decision"]
    assert [r["status"] for r in result["seed_runs"]] == ["succeeded", "succeeded", "failed"]
    # It counts in the family that was started: p is corrected over two comparisons.
    alone = {row["variant"]: row for row in execute("model.steps=20")["effects"]}
    assert rows["steps=20"]["p_value"] == pytest.approx(2 * alone["steps=20"]["p_value"])


def test_one_failing_seed_takes_its_variant_along():
    # The seed fails, not the recipe: a verdict over the lucky seeds would hide it.
    result = execute("model.steps=20", variants=["frail:exam.fail_at_seed=4"], seeds=2)
    rows = {row["variant"]: row for row in result["effects"]}
    assert result["status"] == "partial"
    assert [r["status"] for r in result["seed_runs"] if r["variant"] == "frail"] == [
        "succeeded",
        "failed",
    ]
    assert rows["frail"]["success"] is None
    assert rows["steps=20"]["n"] == 160


def test_without_the_base_there_is_no_verdict():
    result = execute("exam.fail=false", overrides=(("exam.fail", True),))
    assert result["status"] == "failed"
    assert result["comparison_key"] is None
    rows = {row["variant"]: row for row in result["effects"]}
    assert rows["base"]["success"] is None
    assert rows["fail=false"]["n"] == 80, "what was finished is shown, without a verdict"
    assert rows["fail=false"]["decision"] == "no verdict"


def test_seeds_alone_measure_the_noise_floor():
    result = execute(seeds=4)
    seeds = result["seeds"]
    assert seeds["fewest"] == 4
    assert 0 < seeds["low"] < seeds["deviation"] < seeds["high"]
    assert len({r["success_rate"] for r in result["seed_runs"]}) > 1
    assert [row["decision"] for row in result["effects"]] == ["the base"]


def test_report_shows_table_curve_seeds_and_lineage():
    result = execute("model.steps=10,20", seeds=2)
    text = write_ablation_report(result["ablation_id"]).read_text()
    picture = "<title>Success over model.steps</title>"
    for part in (picture, "Seeds", "Lineage", "steps=20/1", "provisional"):
        assert part in text
    with pytest.raises(FoundryError, match="'nothing' is not an ablation"):
        write_ablation_report("nothing")


def test_curves_take_only_variants_that_change_one_thing():
    common = {"success": 0.5, "low": 0.4, "high": 0.6, "n": 10, "p_value": None, "decision": ""}

    def row(variant, path, old, new):
        return common | {
            "variant": variant, "path": path, "old": old, "new": new, "letters": "a",
        }  # fmt: skip

    effects = [
        row("base", None, None, None),
        row("a", "m.x", 1, 2),
        row("b", "m.x", 1, 4),
        row("both", "m.x", 1, 8),
        row("both", "m.y", 1, 2),
        row("named", "m.kind", "s", "t"),
    ]
    assert [point[0] for point in responses(effects)["m.x"]] == [1.0, 2.0, 4.0]
    assert responses(effects).keys() == {"m.x"}
    assert effects_rows(effects)[4][1] == "m.x: 1 → 8; m.y: 1 → 2"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"vary": (Vary(path="model.stepz", values=(1,)),)}, ("stepz=1", "'steps'")),
        ({"vary": (Vary(path="mdel.steps", values=(1,)),)}, ("no stage 'mdel'", "'model'")),
        ({"seeds": 2, "evaluation": "exm"}, ("'exm' is no evaluation stage", "'exam'")),
        ({"vary": (Vary(path="exam.episodes_per_task", values=(3,)),)}, ("same scenarios",)),
        ({"vary": (Vary(path="model.resources.cpus", values=(2,)),)}, ("does not depend on",)),
        ({"seeds": 2, "alpha": 2.0}, ("verdict.alpha", "less than 1")),
        ({"seeds": 0}, ("seeds = 0", "between 1 and")),
        ({}, ("nothing is varied",)),
        ({"vary": (Vary(path="model.steps", values=(5,)),)}, ("steps=5 is the same as base",)),
    ],
)
def test_mistakes_are_named_before_anything_runs(home, request_, words):
    with pytest.raises(FoundryError) as caught:
        plan_ablation(AblationRequest(pipeline=str(EXAMS), **request_))
    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}"
    assert not (home / "store" / "events").exists()


def cli(*arguments, **options):
    return subprocess.run(
        [*CLI, *arguments], capture_output=True, text=True, timeout=240, **options
    )


def test_planning_imports_nothing_heavy():
    code = (
        "import sys; from flows.cli import main; failed = main(sys.argv[1:]);"
        "bad = {'torch', 'ray', 'prefect', 'scipy', 'mujoco', 'duckdb'} & set(sys.modules);"
        "sys.exit(f'imported {bad}' if bad else failed)"
    )
    arguments = ["ablate", str(EXAMS), "--vary", "model.steps=1,2", "--dry-run", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["seed_runs"]) == 3


def test_command_line_through_prefect_with_a_failing_variant(home):
    vary = ("--vary", "model.steps=20", "--variant", "bad:exam.fail=true")
    done = cli("ablate", str(EXAMS), *vary, "--json")
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "partial"
    assert Path(result["report"]).is_file()
    assert {r["variant"]: r["decision"] for r in result["effects"]}["steps=20"] == (
        "worse than the base (these policies)"
    )
    shown = cli("report", result["ablation_id"], "--json")
    assert json.loads(shown.stdout)["report"] == result["report"]


@pytest.mark.slow("kills a campaign, or runs two at once")
def test_kill_9_then_again_continues_where_it_stopped(home):
    settings = ("-o", "model.steps=40", "-o", "model.seconds=8", "--vary", "model.rate=0.2")
    process = subprocess.Popen(
        [*CLI, "ablate", str(EXAMS), *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        states = list((home / "store" / "work").glob("*/scratch/state.json"))
        if states and json.loads(states[0].read_text())["step"] >= 5:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = cli("ablate", str(EXAMS), *settings, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "base:text" not in built(result)
    resumed = [p.read_text() for p in (home / "store" / "train").glob("*/records/resumed.txt")]
    assert max(map(int, resumed)) >= 5


@pytest.mark.slow("kills a campaign, or runs two at once")
def test_two_studies_at_once_build_what_they_share_once(home):
    """Each of its own process, on one home; one has a variant that fails."""
    shared = ("-o", "model.rate=0.07", "-o", "model.seconds=3", "--json")
    lines = [
        ["ablate", str(EXAMS), *shared, "--vary", "model.steps=10"],
        ["ablate", str(EXAMS), *shared, "--vary", "model.steps=10,20", "--variant",
         "bad:exam.fail=true"],
    ]  # fmt: skip
    both = [subprocess.Popen([*CLI, *one], stdout=subprocess.PIPE, text=True) for one in lines]
    results = [json.loads(one.communicate(timeout=280)[0]) for one in both]
    assert [one.returncode for one in both] == [0, 1]
    assert [one["status"] for one in results] == ["succeeded", "partial"]
    query = "select key, count(*) as n from attempt where state = 'committed' group by key"
    assert {row["n"] for row in queries.sql(queries.connect(), query)} == {1}
    first, second = ({r["variant"]: r for r in one["effects"]} for one in results)
    assert first["steps=10"]["success"] == second["steps=10"]["success"]
    assert second["steps=20"]["decision"] == "worse than the base (these policies)"
    assert second["bad"]["decision"].startswith("no verdict: ")
    assert "told to fail" in second["bad"]["decision"]
