"""Samples of a space, and searches: what is asked for, who goes on, what is judged on what."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from flows.ablation.drivers.base import DRIVERS, Driver
from flows.ablation.plan import plan_ablation
from flows.ablation.run import AblationRun
from flows.ablation.search import Search, SearchRequest, plan_search
from flows.ablation.search_table import rung_text, rungs_markdown
from flows.ablation.space import Choices, Range, draw, parse_dimension
from flows.ablation.studies import find_study
from flows.ablation.table import plan_rows
from flows.ablation.variants import AblationRequest, Sample, parse_vary
from flows.cli import main
from foundry_core.errors import FoundryError
from foundry_core.lineage import queries
from foundry_core.pipeline.cost import Cost, total_cost
from tests.support import WORDS

BUDGETS = WORDS.with_name("budgets.yaml")
LOG = Range(low=1e-4, high=1e-2, log=True)
RATE = {"model.rate": Range(low=0.01, high=0.5, log=True)}


@pytest.fixture(autouse=True)
def home(small_home):
    small_home.mkdir()  # so that plans keep their caches
    return small_home


def values(space, number, seed=0):
    return [tuple(value for _, value in one) for one in draw(space, number, seed)]


def test_a_sample_is_the_same_again_and_a_larger_one_begins_with_it():
    space = {"a.lr": LOG, "a.kind": Choices(values=("x", "y")), "a.layers": Range(low=1, high=8)}
    few, many = values(space, 5), values(space, 40)
    assert many[:5] == few
    assert len(set(many)) == 40
    assert values(space, 5, seed=1) != few
    assert [one[:1] for one in values({"a.lr": LOG}, 5)] == [one[:1] for one in few]


def test_a_range_is_covered_evenly_on_its_scale():
    found = [value for (value,) in values({"a.lr": LOG}, 300)]
    assert min(found) >= 1e-4 and max(found) <= 1e-2
    # Half of them below the geometric middle; linear, it would be one in ten.
    assert 120 < sum(value < 1e-3 for value in found) < 180
    whole = values({"a.n": Range(low=3, high=6)}, 4)
    assert sorted(whole) == [(3,), (4,), (5,), (6,)]
    log = Counter(Range(low=1, high=4, log=True).at(share / 100) for share in range(100))
    assert set(log) == {1, 2, 3, 4} and log[1] > 2 * log[4]
    assert Range(low=0.0, high=1.0).at(0.123456) == 0.123, "three digits: a name, and a key"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.b={low: 2, high: 1}", "low 2 is not below high 1"),
        ("a.b={low: -.inf, high: 1}", "finite number"),
        ("a.b={low: 0, high: .nan}", "finite number"),
        ("a.b={low: 0, high: 1, log: true}", "log needs low > 0"),
        ("a.b={low: 0, hgh: 1}", "hgh"),
        ("a.b=[1, 1]", "1 is named twice"),
        ("a.b=[]", "at least 1"),
        ("a.b=3", "neither a list of values nor a range"),
    ],
)
def test_mistakes_in_a_space_are_named(text, words):
    with pytest.raises(FoundryError, match=words):
        parse_dimension(text)


def test_more_than_a_space_has_is_refused():
    space = {"a.b": Choices(values=(1, 2)), "a.c": Range(low=1, high=3)}
    assert len(set(values(space, 6))) == 6
    with pytest.raises(FoundryError, match="7 variants of a space that has 6"):
        draw(space, 7)


def test_an_ablation_takes_a_sample_beside_its_grid(capsys):
    sample = Sample(space=RATE, number=3)
    request = AblationRequest(
        pipeline=str(BUDGETS), vary=(parse_vary("model.steps=5"),), sample=sample
    )
    rows = plan_rows(plan_ablation(request))
    drawn = [f"rate={value}" for (value,) in values(RATE, 3)]
    assert [row[0] for row in rows[1:]] == ["base", "steps=5", *drawn]
    assert request.title == "ablation model.steps ×1; 3 drawn over model.rate"
    space = "model.rate={low: 0.01, high: 0.5, log: true}"
    assert main(["ablate", str(BUDGETS), "--space", space, "--sample", "3", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in drawn)
    assert main(["ablate", str(BUDGETS), "--space", space, "--dry-run"]) == 2
    assert "0 variants: at least one" in capsys.readouterr().err
    twice = ["--space", space, "--space", "model.rate=[1, 2]", "--sample", "3"]
    assert main(["ablate", str(BUDGETS), *twice, "--dry-run"]) == 2
    assert "space 'model.rate' is given twice" in capsys.readouterr().err


def test_a_study_has_a_space_and_a_number(tmp_path, capsys):
    path = tmp_path / "ours.yaml"
    path.write_text(
        f"question: Which rate?\npipeline: {BUDGETS}\nsample: 4\nseeds: 1\n"
        "space: {model.rate: {low: 0.01, high: 0.5, log: true}, model.tail: [2, 3]}\n"
    )
    asked = find_study(str(path)).request(AblationRequest(pipeline=""))
    assert len(plan_ablation(asked).by_variant) == 5
    more = AblationRequest(pipeline="", sample=Sample(space={}, number=6))
    assert find_study(str(path)).request(more).sample.number == 6
    assert main(["ablate", str(path), "--sample-seed", "1", "--dry-run", "--json"]) == 0
    drawn = [one["variant"] for one in json.loads(capsys.readouterr().out)["variants"][1:]]
    other = draw({**RATE, "model.tail": Choices(values=(2, 3))}, 4, seed=1)
    assert drawn == [f"rate={one[0][1]},tail={one[1][1]}" for one in other]


class Playing:
    """Carries out an ablation without building: a variant's success is a function of what it
    changes and of the rung's budget."""

    def __init__(self, success, fails=()):
        self.success, self.fails, self.told = success, fails, []

    def __call__(self, ablation, rung):
        (budget,) = {r.pipeline.stages["model"].recipe.steps for r in ablation.seed_runs}
        exam = ablation.seed_runs[0].pipeline.stages["exam"].recipe
        names = list(ablation.by_variant)
        seeds = sorted({r.seed for r in ablation.seed_runs})
        self.told.append((rung, budget, names, exam.first_scenario, seeds))
        effects = []
        for name, seed_runs in ablation.by_variant.items():
            rate = seed_runs[0].pipeline.stages["model"].recipe.rate
            failed = name in self.fails
            success = None if failed else self.success(rate, budget)
            decision = "no verdict: broke" if failed else "not separated"
            row = {"variant": name, "success": success, "n": 80, "decision": decision}
            effects.append(row)
        return {
            "ablation_id": f"a{len(self.told)}", "effects": effects, "sequential": None,
            "status": "succeeded",
        }  # fmt: skip


def search(**options):
    base = AblationRequest(pipeline=str(BUDGETS), seeds=options.pop("seeds", 1))
    asked = {"variants": 9, "budgets": parse_vary("model.steps=4,8,16"), "space": RATE}
    return SearchRequest(base=base, **asked | options)


def test_the_better_third_goes_on_and_is_judged_on_scenarios_that_no_rung_played():
    play = Playing(lambda rate, budget: rate + budget / 100)
    found = Search(search()).run(play)
    drawn = sorted((value for (value,) in values(RATE, 9)), reverse=True)
    names = [f"rate={value}" for value in drawn]
    rungs = [(rung, budget, len(told), first) for rung, budget, told, first, _ in play.told]
    # The third rung would have one variant, and nothing to choose.
    assert rungs == [
        ("rung 1 of 2", 4, 10, 0),
        ("rung 2 of 2", 8, 4, 0),
        ("finalists", 16, 2, 40),
    ]
    assert play.told[1][2] == ["base", *names[:3]]
    assert found.finalists == (names[0],)
    assert found.changes[names[0]] == {"model.rate": drawn[0]}
    assert (found.status, len(found.rungs[0].rates)) == ("succeeded", 9)
    json.dumps(found.to_json())


def test_decisions_are_told_as_they_fall():
    told = []
    rate_of = Playing(lambda rate, budget: rate, fails=[f"rate={max(values(RATE, 9))[0]}"])
    Search(search(), lambda rungs: told.append([replace(one) for one in rungs])).run(rate_of)
    assert [len(rungs) for rungs in told] == [1, 2]
    best, second = (f"rate={value}" for (value,) in sorted(values(RATE, 9))[-2:][::-1])
    text = rungs_markdown(told[1], 2, {"a1": "[report](/r)"})
    table, lines = text.split("\n\n")
    assert table.splitlines()[2:] == [
        "| 1 of 2 | 4 | 9 | 10 % | 36 % | 3 |",
        "| 2 of 2 | 8 | 3 | 10 % | 36 % | 1 |",
    ]
    first, last = lines.splitlines()
    assert first.startswith(f"- rung 1 of 2 at 4: 9 variants; base 10 %; kept {second} (36 %), ")
    assert first.endswith(f"; {best}: no verdict: broke; [report](/r)")
    assert last == f"- rung 2 of 2 at 8: 3 variants; base 10 %; kept {second} (36 %)"


def test_several_seeds_are_trainings_that_no_rung_has_seen():
    play = Playing(lambda rate, budget: rate)
    found = Search(search(seeds=3, finalists=2)).run(play)
    assert [seeds for *_, seeds in play.told] == [[0], [0], [1, 2, 3]]
    assert len(play.told[-1][2]) == 3
    assert "2 finalists" in found.promise and "3 new trainings each" in found.promise


def test_a_variant_that_fails_is_out_and_a_failing_base_ends_it():
    best = f"rate={max(values(RATE, 9))[0]}"
    found = Search(search()).run(Playing(lambda rate, budget: rate, fails=[best]))
    assert found.rungs[0].dropped == {best: "no verdict: broke"}
    assert best not in found.finalists
    found = Search(search()).run(Playing(lambda rate, budget: rate, fails=["base"]))
    assert (found.status, found.error) == ("failed", "rung 1: no verdict: broke")
    every = [f"rate={value}" for (value,) in values(RATE, 9)]
    found = Search(search()).run(Playing(lambda rate, budget: rate, fails=every))
    assert found.status == "failed" and "no variant is left" in found.error


def test_the_base_among_the_variants_is_no_variant():
    space = {"model.rate": Choices(values=(0.1, 0.2, 0.4))}
    found = Search(search(space=space, variants=3)).run(Playing(lambda rate, budget: rate))
    assert found.rungs[0].rates["rate=0.1"] is None
    assert found.finalists == ("rate=0.4",)


class Climbing(Driver):
    """Asks for ever larger values after what it was told."""

    def __init__(self, space, number, seed):
        self.best = 0.1

    def ask(self):
        self.best = round(self.best + 0.02, 2)
        return (("model.rate", self.best),)

    def tell(self, asked, rate):
        if rate is not None and rate > 0.2:
            self.best = 0.3


def test_a_driver_that_learns_is_told_batch_after_batch_in_the_order_of_asking(monkeypatch):
    monkeypatch.setattr(DRIVERS, "get", lambda name: Climbing)
    play = Playing(lambda rate, budget: rate * 1.5)
    texts = []
    asked = search(budgets=None, variants=4, batch=2, driver="climbing")
    found = Search(asked, lambda rungs: texts.append(rung_text(rungs[-1], 1))).run(play)
    assert [told for _, _, told, *_ in play.told] == [
        ["base", "rate=0.12", "rate=0.14"],
        ["base", "rate=0.32", "rate=0.34"],
        ["base", "rate=0.34"],
    ]
    assert len(found.rungs[0].ablations) == 2
    assert texts == [
        "rung 1 of 1: 2 variants; base 15 %",
        "rung 1 of 1: 4 variants; base 15 %; kept rate=0.34 (51 %)",
    ]


def test_the_plan_is_the_first_rung_and_the_most_that_all_of_it_costs(capsys):
    asked = search(seeds=2)
    plan = plan_search(asked)
    assert [(s.name, s.budget, s.variants, s.seeds) for s in plan.steps] == [
        ("rung 1", 4, 9, 1),
        ("rung 2", 8, 3, 1),
        ("finalists", 16, 1, 2),
    ]
    # base (text, model, exam), the variants' models and exams, the verdict
    assert [s.cost.stages for s in plan.steps] == [3 + 18 + 1, 3 + 6 + 1, 5 + 4 + 1]
    assert next(iter(plan.first.by_variant)) == "base" and len(plan.first.by_variant) == 10
    line = ["search", str(BUDGETS), "--variants", "9", "--rungs", "model.steps=4,8,16"]
    line += ["--space", "model.rate={low: 0.01, high: 0.5, log: true}", "--dry-run"]
    assert main([*line, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["search"] == search().id != asked.id
    assert [step["at_most"]["stages"] for step in shown["steps"]] == [22, 10, 6]
    assert main(line) == 0
    assert "the whole at most" in capsys.readouterr().out


def test_costs_of_several_plans_add_up():
    known = Cost(stages=2, seconds=60, gpu_hours=1.5, unknown=("a",), gpu_rate=2.0)
    both = total_cost([known, Cost(stages=1, seconds=30, unknown=("b",), gpu_rate=2.0)])
    assert (both.stages, both.seconds, both.money) == (3, 90, 3.0)
    assert both.unknown == ("a", "b")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budgets": parse_vary("model.steps=4,4.0,8")}, "budgets are numbers that grow"),
        ({"budgets": parse_vary("model.rate=1,2")}, "and in the space, too"),
        ({"finalists": 10}, "10 finalists of 9"),
        ({"reduction": 1}, "reduction = 1"),
        ({"batch": 0}, "batch = 0"),
        ({"driver": "optna"}, "unknown search driver 'optna'"),
        ({"space": {}}, "nothing to draw from"),
        ({"budgets": parse_vary("model.stepz=4,8")}, "stepz"),
    ],
)
def test_mistakes_are_named_before_anything_runs(home, options, words):
    with pytest.raises(FoundryError, match=words):
        plan_search(search(**options))
    assert not (home / "store" / "events").exists()


def test_an_evaluation_without_other_scenarios_can_judge_nothing():
    pipeline = BUDGETS.with_name("pipeline.yaml")
    with pytest.raises(FoundryError, match="has no first_scenario"):
        base = AblationRequest(pipeline=str(pipeline), evaluation="total")
        plan_search(
            SearchRequest(base=base, space={"first.lines": Range(low=4, high=9)}, variants=2)
        )


def carried_out(ablation, rung):
    """Really, stage after stage."""
    run = AblationRun(ablation)
    run.start()
    run.walk()
    return run.finish("succeeded")


@pytest.mark.slow("runs a search of several rungs")
def test_rungs_continue_what_the_ones_before_trained_and_all_is_known_again():
    asked = search(variants=3, budgets=parse_vary("model.steps=4,8"), reduction=2)
    results = []

    def carry(ablation, rung):
        results.append(carried_out(ablation, rung))
        return results[-1]

    found = Search(asked).run(carry)
    assert found.verdict["status"] == "succeeded"
    # budgets.yaml trains the last two of its steps otherwise: a larger budget begins before them.
    assert {results[1]["metrics"][f"{n}:model.first"] for n in ("base", *found.rungs[1].rates)} == {
        2
    }
    rows = queries.sql(queries.connect(), "select search from ablation order by started_at")
    assert [row["search"]["rung"] for row in rows] == [0, 1, None]
    assert {row["search"]["id"] for row in rows} == {asked.id}
    again = []
    Search(asked).run(lambda ablation, rung: again.append(carried_out(ablation, rung)) or again[-1])
    assert [stage for one in again for stage in one["stages"] if stage["attempt"]] == []
    assert [one["comparison_key"] for one in again] == [one["comparison_key"] for one in results]


LINE = [sys.executable, "-m", "flows.cli", "search", str(BUDGETS), "--json"]
LINE += ["--space", "model.rate={low: 0.01, high: 0.5, log: true}"]
LINE += ["--rungs", "model.steps=4,8", "--reduction", "2"]


def committed():
    """Key → how often something was committed under it."""
    query = "select key, count(*) as n from attempt where state = 'committed' group by key"
    return {row["key"]: row["n"] for row in queries.sql(queries.connect(), query)}


@pytest.mark.slow("runs two searches of several rungs")
@pytest.mark.timeout(900)
def test_two_searches_at_once_share_what_is_equal_and_a_failing_variant_drops_out():
    """Both have the base, and variants that fail or do not, of one rate each."""
    line = [*LINE, "--space", "model.fail=[false, true]", "--variants", "2"]
    line[line.index("--space") + 1] = "model.rate=[0.2]"
    both = [
        subprocess.Popen([*line, "--search-seed", seed], stdout=subprocess.PIPE, text=True)
        for seed in ("0", "1")
    ]
    told = [one.communicate(timeout=800)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    for found in map(json.loads, told):
        first = found["rungs"][0]
        assert first["rates"]["rate=0.2,fail=true"] is None
        assert first["dropped"]["rate=0.2,fail=true"].startswith("no verdict: ")
        assert found["finalists"] == ["rate=0.2,fail=false"]
        assert found["status"] == "succeeded"
    assert set(committed().values()) == {1}
    rows = queries.sql(queries.connect(), "select distinct search.id as id from ablation")
    assert len(rows) == 2


@pytest.mark.slow("runs a search of several rungs")
@pytest.mark.timeout(900)
def test_kill_9_then_again_asks_for_the_same_and_reuses_what_ran(home):
    line = [*LINE, "--variants", "4", "-o", "model.seconds=0.05"]
    process = subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(models := list((home / "store" / "grow").glob("*/artifact.json"))) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.parent.name for path in models}
    done = subprocess.run(line, capture_output=True, text=True, timeout=700)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["rungs"][0]["rates"]) == [f"rate={value}" for (value,) in values(RATE, 4)]
    built = committed()
    assert set(built.values()) == {1}
    assert before <= built.keys()
    assert Path(found["verdict"]["report"]).is_file()


def test_optuna_asks_for_the_same_after_the_same_answers():
    pytest.importorskip("optuna")
    space = {**RATE, "model.tail": Range(low=1, high=3), "model.fail": Choices(values=(False, [1]))}

    def asked(count):
        driver, found = DRIVERS.get("optuna")(space, count, 3), []
        while len(found) < count:
            batch = [driver.ask() for _ in range(2)]
            for one in batch:
                rate = dict(one)["model.rate"]
                driver.tell(one, None if rate > 0.4 else 1 - abs(rate - 0.05))
            found += batch
        return found

    first = asked(30)
    assert first[:20] == asked(20)
    for one in first:
        assert [path for path, _ in one] == list(space)
        assert 0.01 <= dict(one)["model.rate"] <= 0.5
        assert dict(one)["model.tail"] in (1, 2, 3) and dict(one)["model.fail"] in (False, [1])
    near = sum(0.025 < dict(one)["model.rate"] < 0.1 for one in first[15:])
    assert near > 5, "a third of the scale; what it was told moves where it asks"


def test_without_optuna_the_extra_is_named_and_planning_never_imports_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(FoundryError) as caught:
        plan_search(search(driver="optuna"))
    assert caught.value.hint == "pip install 'foundry-robotics[optuna]'"
    plan_search(search())
