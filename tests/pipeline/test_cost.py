"""What a plan costs before it runs: from past builds, by the amount of work, by arithmetic."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from flows.ablation.plan import plan_ablation
from flows.ablation.table import cost_rows, plan_json, plan_notes
from flows.ablation.variants import AblationRequest, parse_vary
from flows.cli import main
from flows.dispatch import inline
from flows.runs.planning import Request, prepare
from foundry_core.config.overrides import parse_override
from foundry_core.errors import FoundryError
from foundry_core.pipeline.attempts import Attempt, known_attempts, line_through, scaled, told
from foundry_core.pipeline.cost import (
    Cost,
    Estimate,
    check_affordable,
    cost_of,
    estimate,
    learn,
)
from foundry_core.pipeline.graph import load_pipeline
from foundry_core.pipeline.plan import Committed, StagePlan
from foundry_core.pipeline.reasons import BaselineStage
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import identify
from foundry_core.pipeline.stage import Resources, Work
from foundry_core.pipeline.trunks import Continues
from foundry_core.training.peaks import GPU, MFU, peak_of
from foundry_core.training.sizing.stages import cost_of as size_of
from tests.runs import run
from tests.support import WORDS, words

pytestmark = pytest.mark.usefixtures("known_code")

EXAMS = WORDS.with_name("exams.yaml")


@pytest.fixture(autouse=True)
def home(small_home, monkeypatch):
    monkeypatch.delenv("FOUNDRY_GPU_RATE", raising=False)
    small_home.mkdir()  # a plan makes no home, and caches lie in one
    return small_home


def steps(amount):
    return Work(unit="steps", amount=amount, steps=amount)


class Past:
    """A catalog in which one key is committed."""

    def __init__(self, key, seconds, continued_from=None):
        self.key = key
        self.committed = Committed(
            key=key, content="c", inputs={}, seconds=seconds, continued_from=continued_from
        )

    def status(self, kind, key):
        return ("ok", "", self.committed) if key == self.key else ("missing", "", None)


NOTHING = Past("", 0.0)


def estimated(now, catalog=NOTHING, old=None, continues=None, attempts=None):
    """Of the stage `model` (kind train) of a pipeline."""
    spec = identify(now)["model"]
    return estimate(
        spec,
        now.stages["model"],
        now.views["model"].inputs,
        old,
        catalog,
        continues,
        attempts or {},
    )


def test_a_hundredth_of_the_steps_takes_a_hundredth_of_the_time_beside_the_start():
    # 3 s of start, 477 s for 400 steps
    assert scaled(480.0, steps(400), steps(4)) == pytest.approx(3 + 4.77)
    assert scaled(480.0, steps(400), steps(800)) == pytest.approx(3 + 954)
    assert scaled(480.0, steps(400), Work(unit="tokens", amount=4)) == 480.0
    assert scaled(480.0, None, steps(4)) == 480.0
    assert scaled(2.0, steps(400), steps(4)) == 2.0


def test_the_run_before_tells_by_its_amount():
    before = identify(words("model.steps=400"))["model"]
    old, now = BaselineStage.of(before), words("model.steps=4")
    found = estimated(now, Past(before.key, 480.0), old)
    assert found == Estimate(seconds=pytest.approx(3 + 4.77), by="past")
    # What was built before went on from step 200 of its 400: the 480 s are those of 200 steps.
    half = estimated(now, Past(before.key, 480.0, continued_from=200), old)
    assert half.seconds == pytest.approx(3 + 477 * 4 / 200)


def test_what_continues_does_only_the_rest():
    now = words("model.steps=400")
    own = Past(identify(now)["model"].key, 480.0)
    continues = Continues(step=300, total=400)
    assert estimated(now, own, None, continues).seconds == pytest.approx(3 + 477 / 4)


def test_a_recipe_of_an_earlier_version_is_not_scaled():
    now = words("model.steps=4")
    before = identify(words("model.steps=400"))["model"]
    old = replace(BaselineStage.of(before), recipe={"forgotten": 1})
    assert estimated(now, Past(before.key, 480.0), old).seconds == 480.0


def test_a_line_tells_the_start_from_the_work():
    # 15 s of start and 0.75 s a step
    line = line_through([Attempt(8, 21.0), Attempt(40, 45.0), Attempt(200, 165.0)])
    assert line == (pytest.approx(15.0), pytest.approx(0.75), 200)
    assert line.seconds(400) == pytest.approx(315.0)
    assert line.seconds(4001) is None  # more than 20 times the largest
    assert line_through([Attempt(8, 21.0)]) is None
    assert line_through([Attempt(100, 90.0), Attempt(150, 127.5)]) is None  # too much alike
    assert line_through([Attempt(8, 21.0), Attempt(40, 24.0)]) is None  # starts differ by as much
    assert line_through([Attempt(8, 60.0), Attempt(40, 21.0)]) is None
    assert line_through([Attempt(10, 60.0), Attempt(100, 6000.0)]) is None  # a start below nothing


def test_a_short_attempt_tells_nothing_of_a_much_larger_one():
    assert scaled(22.0, steps(8), steps(400)) is None
    assert scaled(22.0, steps(8), steps(16)) == pytest.approx(3 + 38)
    assert scaled(63.0, steps(8), steps(160)) == pytest.approx(3 + 1200)
    assert scaled(63.0, steps(8), steps(161)) is None
    assert told([], steps(4)) is None
    assert told([Attempt(8, 22.0)], steps(400)) is None
    # A near amount tells best, then the line, then the nearest alone.
    three = [Attempt(8, 21.0), Attempt(40, 45.0), Attempt(200, 150.0)]
    assert told(three, steps(200)) == 150.0
    assert told(three[:2], steps(200)) == pytest.approx(15 + 150)
    assert told([Attempt(200, 153.0), Attempt(210, 153.0)], steps(20)) == pytest.approx(3 + 15)


def test_no_hours_are_promised_from_eight_steps():
    before = identify(words("model.steps=8"))["model"]
    old, now = BaselineStage.of(before), words("model.steps=400")
    past = Past(before.key, 21.0)
    assert estimated(now, past, old) is None
    # Another attempt tells what was start.
    learn(words("model.steps=40").stages["model"], {}, 45.0, None)
    found = estimated(now, past, old, attempts=known_attempts())
    assert found == Estimate(seconds=pytest.approx(15 + 300), by="past")


def test_a_training_of_which_eight_steps_ran_is_told_by_arithmetic():
    few = (("llm.training.steps", 8), ("vla.training.steps", 8))
    before, now = (load_pipeline("demo", o, kinds=stage_kind) for o in (few, ()))
    for name in ("llm", "vla"):
        learn(before.stages[name], before.views[name].inputs, 22.0, None)
        node, inputs = now.stages[name], now.views[name].inputs
        spec = SimpleNamespace(key="new", kind=node.kind)
        found = estimate(spec, node, inputs, None, NOTHING, None, known_attempts())
        arithmetic = node.stage.expected_seconds(node.recipe, node.resources, inputs)
        assert found == Estimate(seconds=pytest.approx(22 + arithmetic), by="size")


def test_attempts_teach_what_a_unit_of_work_takes():
    pipeline = words("model.steps=50")
    assert estimated(pipeline) is None
    learn(pipeline.stages["model"], {}, 103.0, None)
    learn(pipeline.stages["model"], {}, 63.0, None)  # the last of an amount counts
    kept = [Attempt(50, 63.0, pipeline.stages["model"].resources.gpus)]
    assert known_attempts() == {"train": {"steps": {"model": kept, "": kept}}}
    assert estimated(words("model.steps=500"), attempts=known_attempts()) == Estimate(
        seconds=pytest.approx(603.0), by="rate"
    )


def test_a_run_teaches_plans_in_other_stores(monkeypatch, tmp_path):
    run("model.seconds=0")
    monkeypatch.setenv("FOUNDRY_STORE", str(tmp_path / "other"))
    row = prepare(Request(pipeline=str(WORDS))).plan.stages["model"]
    assert (row.action, row.estimated_by) == ("run", "rate")
    assert row.estimated_seconds > 0


def test_a_training_that_never_ran_is_told_by_arithmetic():
    pipeline = load_pipeline("foundry-vla-100m", kinds=stage_kind)
    for name in ("llm", "vlm", "vla"):
        node, size = pipeline.stages[name], size_of(pipeline, name)
        inputs = pipeline.views[name].inputs
        seconds = node.stage.expected_seconds(node.recipe, node.resources, inputs)
        hours = seconds * node.resources.gpus / 3600
        assert hours == pytest.approx(size.gpu_hours(peak_of(GPU), MFU))
        work = node.stage.work(node.recipe, inputs)
        assert (work.unit, work.steps) == ("FLOPs", size.steps)
        assert work.amount == pytest.approx(size.flops)


def test_the_demos_stages_say_how_much_they_do():
    pipeline = load_pipeline("demo", kinds=stage_kind)

    def work(name):
        node = pipeline.stages[name]
        return node.stage.work(node.recipe, pipeline.views[name].inputs)

    assert (work("demos").amount, work("robot").amount) == (400, 400)
    assert (work("scenes").amount, work("captions").amount) == (2400, 2400)
    assert (work("evaluate").amount, work("evaluate_still").amount) == (100, 100)
    assert work("vla_untrained").amount == 0
    assert work("vla").amount > work("vla_blind").amount > 0
    assert work("tokenizer") is None


def rows(**seconds):
    return [
        StagePlan(name=name, kind="k", key="", action="run", estimated_seconds=value)
        for name, value in seconds.items()
    ]


def test_hours_and_money_of_those_that_ask_for_gpus():
    resources = {"a": Resources(gpus=8), "b": Resources(), "c": Resources(gpus=1)}
    found = cost_of(rows(a=1800.0, b=60.0, c=None), resources, 2.5)
    assert (found.seconds, found.gpu_hours, found.money) == (1860.0, 4.0, 10.0)
    assert (found.unknown, found.unknown_gpu) == (("c",), ("c",))
    assert found.sentence() == (
        "time not known yet: too little is known of 1 of 3 stages (c); the others: about 31 min of "
        "work, 4 GPU hours, 10.00 at 2.5 a GPU hour"
    )
    known = cost_of(rows(a=1800.0, b=60.0), resources)
    assert known.sentence() == "about 31 min of work, 4 GPU hours"
    assert "not known" in cost_of(rows(c=None), resources).sentence()


def test_more_than_allowed_is_refused_and_so_is_the_unknown():
    check_affordable(Cost(gpu_hours=5.0, unknown_gpu=("a",)), None)
    check_affordable(Cost(gpu_hours=5.0), 5.0)
    with pytest.raises(FoundryError, match="about 5 GPU hours, more than the 4 that are allowed"):
        check_affordable(Cost(gpu_hours=5.0), 4.0)
    with pytest.raises(FoundryError, match="how many GPU hours vla takes is not known"):
        check_affordable(Cost(gpu_hours=0.0, unknown_gpu=("base/0:vla", "base/1:vla")), 4.0)


def exams_model(*overrides):
    """The stage `model` of a pipeline in which it asks for a GPU."""
    pairs = tuple(parse_override(text) for text in overrides)
    return load_pipeline(str(EXAMS), pairs, kinds=stage_kind).stages["model"]


def ablation(*vary, **options):
    request = AblationRequest(
        pipeline=str(EXAMS), vary=tuple(parse_vary(text) for text in vary), **options
    )
    return plan_ablation(request)


def test_an_ablation_adds_up_by_stage_and_knows_what_sharing_saves():
    learn(exams_model("model.steps=5"), {}, 3 + 100.0, None)  # 20 s a step
    found = ablation("model.steps=20,40", "exam.pass_mark=0,1")
    # base 5 steps, 20 and 40: each model once for two exams. 3 s of start each.
    model = found.cost_by_stage(2.0)["model"]
    assert (model.stages, model.seconds) == (3, pytest.approx(9 + 1300.0))
    assert model.gpu_hours == pytest.approx(1309 / 3600)
    assert found.unshared_cost().seconds == pytest.approx(15 + 100 + 2 * 400 + 2 * 800)
    table = cost_rows(found, 2.0)
    assert table[0] == ["stage", "runs", "about", "GPU hours", "money"]
    assert ["model", "3", "22 min", "0.36", "0.73"] in table
    assert table[-1][:3] == ["in all", "10", "22 min"]
    (note,) = (note for note in plan_notes(found, 2.0) if note.startswith("cost: "))
    assert note.startswith("cost: time not known yet: too little is known of 7 of 10 stages (")
    assert "); the others: about 22 min of work, 0.36 GPU hours, 0.73 at 2 a GPU hour" in note
    assert plan_json(found, 2.0)["cost"]["money"] == pytest.approx(2 * 1309 / 3600)


def test_a_variant_of_what_was_built_is_told_by_its_amount():
    _, under_way = run("model.steps=5")  # the base's model, under the same key
    took = under_way.outcomes["model"].artifact.seconds
    found = ablation("model.steps=10,500")
    twice, hundredfold = (found.merged.plan.stages[f"steps={n}:model"] for n in (10, 500))
    assert twice.estimated_seconds == pytest.approx(scaled(took, steps(5), steps(10)))
    assert twice.estimated_by == "past"
    assert hundredfold.estimated_seconds is None


def test_the_command_line_refuses_and_asks_the_environment_for_the_rate(monkeypatch, capsys):
    monkeypatch.setattr(inline, "visible_gpus", lambda: 1)
    learn(exams_model("model.steps=5"), {}, 3 + 18000.0, None)  # an hour a step
    plan = ("plan", str(EXAMS), "--json")
    monkeypatch.setenv("FOUNDRY_GPU_RATE", "3")
    assert main(plan) == 0
    assert '"gpu_rate": 3.0' in capsys.readouterr().out
    assert main([*plan, "--max-gpu-hours", "4"]) == 2
    assert "about 5 GPU hours" in capsys.readouterr().out
    dry = ("ablate", str(EXAMS), "--vary", "model.steps=2,3", "--dry-run", "--max-gpu-hours")
    assert main([*dry, "11"]) == 0
    assert main([*dry, "9"]) == 2
    assert "about 10 GPU hours" in capsys.readouterr().err
    monkeypatch.setenv("FOUNDRY_GPU_RATE", "cheap")
    assert main(plan) == 2
    assert "FOUNDRY_GPU_RATE = cheap" in capsys.readouterr().out
    assert main([*plan, "--gpu-rate", "-1"]) == 2
