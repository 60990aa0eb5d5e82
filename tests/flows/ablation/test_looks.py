"""Ablations that look early: what is played, what is left out, and that both are reproducible."""

import json
from pathlib import Path

import pytest

from flows.ablation.plan import plan_ablation, reduced
from flows.ablation.report import write_ablation_report
from flows.ablation.run import AblationRun
from flows.ablation.table import plan_json, plan_markdown, plan_rows
from flows.ablation.variants import AblationRequest, parse_variant, parse_vary
from flows.runs.events import Note
from flows.runs.walk import StagesFailed
from foundry_core.errors import FoundryError
from foundry_core.lineage import queries

EXAMS = Path(__file__).parents[2] / "kinds" / "exams_here.yaml"
# The base succeeds in eight of ten, `same` trains otherwise and as well, `bad` hardly ever.
BAD, SAME = "bad:model.steps=40", "same:model.steps=5,exam.pass_mark=0,model.rate=0.1001"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    return tmp_path / "home"


def planned(*variants, vary=(), **options):
    return plan_ablation(
        AblationRequest(
            pipeline=str(EXAMS),
            vary=tuple(map(parse_vary, vary)),
            variants=tuple(map(parse_variant, variants)),
            **{"looks": 2, "spending": "linear"} | options,
        )
    )


def execute(*variants, **options):
    ablation = AblationRun(planned(*variants, **options))
    ablation.start()
    try:
        ablation.walk()
    except StagesFailed:
        return ablation.finish("failed")
    return ablation.finish("succeeded")


def built(result):
    return [stage["name"] for stage in result["stages"] if stage["attempt"]]


def test_the_plan_shows_the_design_the_next_look_and_the_most_that_may_follow():
    ablation = planned(BAD, SAME)
    header, *body = plan_rows(ablation)
    assert header == ["variant", "model", "exam", "why"]
    assert [row[2] for row in body] == ["run 1, at most 1 more"] * 3
    text = plan_markdown(ablation)
    assert "design: looks after 20, 40 of 40 rounds" in text
    assert "spending linear, family base, alpha 0.05" in text
    assert "shared by all: text (run)\n" in text
    assert "11 stage(s) to run, 3 of them only if" in text
    found = plan_json(ablation)
    assert found["at_most"] == ["base:exam.2", "bad:exam.2", "same:exam.2"]
    assert found["design"]["looks"] == 2
    json.dumps(found)


def test_who_is_decided_stops_and_everything_about_it_is_known_again(home):
    result = execute(BAD, SAME)
    assert result["status"] == "succeeded"
    assert {"base:exam.2", "same:exam.2"} < set(built(result))
    assert "bad:exam.2" not in built(result)
    stopped = [row["name"] for row in result["stages"] if row["action"] == "stopped"]
    assert stopped == ["bad:exam.2"]
    played = result["sequential"]
    assert played["played"] == {"base": 40, "bad": 20, "same": 40}
    assert (played["stopped"], played["episodes"], played["saved"]) == ({"bad": 1}, 200, 40)
    rows = {row["variant"]: row for row in result["effects"]}
    assert rows["bad"]["decision"] == "worse than the base (these policies)"
    assert rows["same"]["decision"] == "not separated from the base"
    assert (rows["bad"]["n"], rows["same"]["n"]) == (40, 80)

    again = execute(BAD, SAME)
    assert built(again) == []
    assert again["comparison_key"] == result["comparison_key"]
    assert [row[2] for row in plan_rows(planned(BAD, SAME))[1:]] == [
        "reuse 2 of 2",
        "reuse 1 of 2",
        "reuse 2 of 2",
    ]
    text = write_ablation_report(result["ablation_id"]).read_text()
    assert "left out 40 of 240 episodes" in text
    assert "20 of 40, stopped at look 1" in text
    assert "met different ones" not in text
    connection = queries.connect()
    ask = f"from ablation where ablation_id = '{result['ablation_id']}'"
    (row,) = queries.sql(connection, ask)
    assert (row["design"]["rounds"], row["design"]["spending"]) == (40, "linear")
    shown = queries.show(connection, f"{result['ablation_id']}.bad")["stages"]
    assert {one["stage"]: one["action"] for one in shown}["exam.2"] == "stopped"


def test_what_a_look_decides_is_told_as_it_falls():
    noted, looked = [], []
    race = AblationRun(
        planned(BAD, SAME),
        observe=lambda event: noted.append(event.text) if isinstance(event, Note) else None,
        looked=lambda standing, rounds: looked.append((standing, rounds)),
    )
    race.start()
    race.walk()
    assert [text for text in noted if text.startswith("look ")] == [
        "look 1: base is better than bad"
    ]
    assert [(standing.look, standing.running, rounds) for standing, rounds in looked] == [
        (2, ("base", "same"), 40),
        (None, (), 40),
    ]
    (decided,) = looked[0][0].decided
    assert (decided.look, decided.rounds, decided.better) == (1, 20, "base")


def test_a_killed_race_goes_on_at_its_look_and_a_larger_budget_reuses_equal_parts():
    killed = AblationRun(planned(BAD))
    killed.start()
    # What a process had done that died before it looked.
    killed.run.walk(targets=["base:exam.1", "bad:exam.1"])
    ablation = planned(BAD)
    assert ablation.standing.look is None, "one look decides, and nobody plays on"
    assert [row.name for row in ablation.merged.plan.to_run()] == ["verdict"]
    result = execute(BAD)
    assert built(result) == ["verdict"]
    assert result["sequential"]["played"] == {"base": 20, "bad": 20}

    more = (("exam.episodes_per_task", 80),)
    larger = planned(BAD, looks=4, overrides=more, spending="e-value")
    parts = {row.name: row.action for row in larger.merged.plan.stages.values()}
    assert (parts["base:exam.1"], parts["bad:exam.1"]) == ("reuse", "reuse")


def test_a_failing_variant_drops_out_and_the_others_race_on():
    result = execute(BAD, "broken:exam.fail=true")
    assert result["status"] == "partial"
    rows = {row["variant"]: row for row in result["effects"]}
    assert rows["bad"]["decision"] == "worse than the base (these policies)"
    assert "told to fail" in rows["broken"]["decision"]
    assert [r["status"] for r in result["seed_runs"]] == ["succeeded", "succeeded", "failed"]
    assert result["sequential"]["played"] == {"base": 20, "bad": 20}
    rest = reduced(planned(BAD, "broken:exam.fail=true"), ["base", "bad"])
    verdict = rest.merged.pipeline.stages["verdict"].recipe
    assert verdict.started == 2, "it counts in the level of a pair"


def test_an_interruption_says_who_was_still_to_play():
    under_way = AblationRun(planned(BAD))
    under_way.start()
    under_way.run.walk(targets=["base:exam.1"])
    result = under_way.finish("cancelled", "Ctrl-C")
    assert result["sequential"] is None
    assert {r["error"] for r in result["seed_runs"]} == {"was not reached"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"looks": 41}, ("41 looks at 40 rounds",)),
        ({"looks": 0}, ("design.looks = 0", "greater than or equal to 1")),
        ({"seeds": 2}, ("looks with 2 seeds", "--seeds 3 without --looks")),
        ({"looks": None}, ("spending without looks", "--looks N")),
        ({"spending": "evenly"}, ("design.spending = 'evenly'",)),
        ({"vary": ["exam.first_scenario=5"]}, ("first_scenario = 5, not 0", "same scenarios")),
        ({"vary": ["exam.episodes_per_task=60"]}, ("episodes_per_task = 30, not 20",)),
        ({"evaluation": "total", "pipeline": "pipeline.yaml"}, ("cannot be played in parts",)),
    ],
)
def test_mistakes_are_named_before_anything_runs(home, options, words):
    pipeline = EXAMS.with_name(options.pop("pipeline", EXAMS.name))
    vary = tuple(map(parse_vary, options.pop("vary", ["model.steps=6"])))
    with pytest.raises(FoundryError) as caught:
        plan_ablation(
            AblationRequest(
                pipeline=str(pipeline),
                vary=vary,
                **{"looks": 2, "spending": "linear"} | options,
            )
        )
    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}"
    assert not (home / "store" / "events").exists()
