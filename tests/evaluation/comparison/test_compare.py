import csv
import io
import re
from dataclasses import replace

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.comparison.groups import parse_groups
from foundry_core.evaluation.comparison.p_values import p_text
from foundry_core.evaluation.comparison.plots import curves, response, success_bars
from foundry_core.evaluation.comparison.report import (
    Filmstrip,
    ReportData,
    write_comparison,
    write_report,
)
from foundry_core.evaluation.comparison.result import read_comparison
from foundry_core.evaluation.comparison.sentences import verdict
from foundry_core.evaluation.comparison.tables import as_csv, markdown, score_text
from foundry_core.evaluation.score import EpisodeResult, Evaluation


def evaluation(budget=25, **tasks):
    """task=(successes, crashes): the first scenarios succeed, the last crash."""
    outcomes = {}
    for task, counts in tasks.items():
        successes, crashed = counts if isinstance(counts, tuple) else (counts, 0)
        done = [True] * successes + [False] * (budget - successes - crashed) + [None] * crashed
        outcomes[task] = dict(enumerate(done))
    return Evaluation(budget=budget, outcomes=outcomes)


EVALUATIONS = {
    "policy": evaluation(open=24, pull=22),
    "blind": evaluation(open=4, pull=8),
    "untrained": evaluation(open=0, pull=(0, 1)),
}
MORE = EVALUATIONS | {"blind": evaluation(open=4, pull=8, push=25)}


def test_base_against_every_other():
    found = compare(EVALUATIONS, "policy")
    assert found.labels == ["policy", "blind", "untrained"]
    assert found.overall["policy"].counted.successes == 46
    assert found.against_base("blind").decision == "worse"
    assert found.against_base("blind").p_corrected < 1e-9
    assert found.against_base("policy") is None
    assert found.letters == {"policy": "a", "blind": "b", "untrained": "b"}
    assert compare(EVALUATIONS, "blind").against_base("policy").decision == "better"


def test_all_pairs_have_letters_that_say_all():
    found = compare(EVALUATIONS)
    assert (found.family, found.size) == ("pairs", 3)
    assert found.letters == {"policy": "a", "blind": "b", "untrained": "c"}
    assert verdict(found) == "3 of 3 pairs are separated."


def test_words_p_and_letters_never_disagree():
    """Better than the base and sharing its letter was possible: the letters came from a family of
    all pairs, the words from one of pairs with the base."""
    rates = {"base": 10, "v1": 19, "v2": 13, "v3": 12}
    found = compare({name: evaluation(t=count) for name, count in rates.items()}, "base")
    for one in found.differences:
        shares = set(found.letters[one.variant]) & set(found.letters["base"])
        assert bool(shares) != one.separated
        assert one.separated == (one.p_corrected <= found.alpha)


def test_equal_policies_share_a_letter_and_what_could_have_been_seen_is_said():
    same = {"a": evaluation(t=12), "b": evaluation(t=13)}
    found = compare(same, "a")
    assert found.letters == {"a": "a", "b": "a"}
    (difference,) = found.differences
    assert difference.decision == "not separated"
    assert "not separated (p = 1.000)" in verdict(found)
    other = {"a": evaluation(budget=100, t=40, u=60), "b": evaluation(budget=100, t=43, u=57)}
    assert "points would have been separated with 80 % power" in verdict(compare(other, "a"))


def test_pairing_counts():
    """112 against 100 successes on the same 200 scenarios, nested: pooled counts give p = .244."""
    found = compare({"a": evaluation(200, t=112), "b": evaluation(200, t=100)}, "a")
    (difference,) = found.differences
    assert difference.p_value == pytest.approx(2 * 0.5**12)
    assert difference.decision == "worse"
    assert (difference.pairs, difference.discordant, difference.test) == (
        200,
        12,
        "exact block test",
    )


def test_one_task_without_shared_scenarios_is_tested_by_barnard():
    one = Evaluation(budget=10, outcomes={"t": {i: i < 7 for i in range(10)}})
    other = Evaluation(budget=10, outcomes={"t": {i: i < 102 for i in range(100, 110)}})
    (difference,) = compare({"a": one, "b": other}, "a").differences
    assert difference.test == "Barnard, unpaired"
    assert difference.p_value == pytest.approx(0.0414, abs=2e-4)


def test_an_unfinished_evaluation_is_judged_by_its_design_or_not_at_all():
    """12 of a budget of 200, 4 against 10 successes: one look at the end of nothing."""
    few = {i: i < 4 for i in range(12)}
    many = {i: i < 10 for i in range(12)}
    found = compare(
        {
            "a": Evaluation(budget=200, outcomes={"t": few}),
            "b": Evaluation(budget=200, outcomes={"t": many}),
        },
        "a",
    )
    (difference,) = found.differences
    assert (difference.decision, difference.p_value) == ("undecided", None)
    assert found.letters == {"a": "a", "b": "a"}
    assert "188 pending" in markdown(found)
    assert "not decided after 12 rounds, go on" in difference.note
    clear = {
        "a": Evaluation(budget=200, outcomes={"t": dict.fromkeys(range(60), False)}),
        "b": Evaluation(budget=200, outcomes={"t": dict.fromkeys(range(60), True)}),
    }
    (difference,) = compare(clear, "a").differences
    assert difference.decision == "better"
    assert "these trained policies differ" in verdict(compare(clear, "a"))


def test_unbalanced_evaluations_of_equal_rates_are_not_separated():
    """Finished, with other shares of the tasks: 83 % against 17 % of all episodes, 50 % of both."""
    easy = {i: i % 10 != 0 for i in range(200)}
    hard = {i: i % 10 == 0 for i in range(200)}

    def part(outcomes, count):
        return {i: outcome for i, outcome in outcomes.items() if i < count}

    found = compare(
        {
            "a": Evaluation(budget=200, outcomes={"easy": easy, "hard": part(hard, 20)}),
            "b": Evaluation(budget=200, outcomes={"easy": part(easy, 20), "hard": hard}),
        },
        "a",
    )
    (difference,) = found.differences
    assert not difference.separated
    assert found.overall["a"].rate == pytest.approx(found.overall["b"].rate)
    assert "180 pending" in markdown(found)
    assert "mean of the tasks' rates" in markdown(found)


def test_crashes_that_would_turn_the_verdict_forbid_one():
    """29 of 30 against 20 of 41: separated; but the other eleven of the better one crashed."""
    good = dict.fromkeys(range(29), True) | {29: False} | dict.fromkeys(range(30, 41), None)
    bad = {i: i < 9 or i >= 30 for i in range(41)}
    found = compare(
        {
            "bad": Evaluation(budget=41, outcomes={"t": bad}),
            "good": Evaluation(budget=41, outcomes={"t": good}),
        },
        "bad",
    )
    (difference,) = found.differences
    assert difference.decision == "no verdict"
    assert "they turn the verdict" in difference.note
    assert "no verdict" in verdict(found)


def test_crashes_forbid_what_only_holm_would_separate():
    """p between alpha / 3 and alpha: the last step of Holm separates it, Bonferroni would not."""
    scenarios = range(60)
    variant = {i: i < 18 or 20 <= i < 31 for i in scenarios}  # 11 against 2 discordant

    def judged(base):
        outcomes = {
            "base": base,
            "variant": variant,
            "best": dict.fromkeys(scenarios, True),
            "worst": dict.fromkeys(scenarios, False),
        }
        found = compare(
            {name: Evaluation(budget=60, outcomes={"t": one}) for name, one in outcomes.items()},
            "base",
        )
        return found, found.against_base("variant")

    base = {i: i < 20 for i in scenarios}
    found, one = judged(base)
    assert 0.05 / 3 < one.p_value <= one.p_corrected <= 0.05
    assert (one.decision, one.turned) == ("better", False)
    found, one = judged(base | {50: None, 51: None})
    assert (one.decision, one.turned, one.p_corrected) == ("no verdict", True, None)
    assert set(found.letters["variant"]) & set(found.letters["base"])


def test_every_table_is_a_family_of_its_own():
    rates = {"a": (10, 24), "b": (19, 12), "c": (13, 11), "d": (12, 24)}
    evaluations = {label: evaluation(x=one, y=other) for label, (one, other) in rates.items()}
    for base in (None, "a"):
        found = compare(evaluations, base, groups={"first": ["x"]})
        assert found.groups["first"] == found.task_tables["x"]
        pairs = 6 if base is None else 3
        for table in (found, *found.groups.values(), *found.task_tables.values()):
            assert (table.size, len(table.differences)) == (pairs, pairs)
            alone = compare({k: restricted(e, table.tasks) for k, e in evaluations.items()}, base)
            assert table.differences == alone.differences
            for one in table.differences:
                shares = set(table.letters[one.variant]) & set(table.letters[one.base])
                assert bool(shares) != one.separated == (one.p_corrected <= found.alpha)


def restricted(found: Evaluation, tasks) -> Evaluation:
    return replace(found, outcomes={task: found.outcomes[task] for task in tasks})


def test_a_task_without_an_outcome_of_one_is_compared_among_the_others():
    found = compare(
        {
            "a": evaluation(x=20, y=25, z=20),
            "b": evaluation(x=5, y=4, z=18),
            "c": evaluation(x=12, y=(0, 25), z=2),
        }
    )
    assert found.tasks == ["x", "z"]
    assert found.missing == {"y": ["c"]}
    assert found.silent == {"c": ["y"]}
    assert found.overall["c"].rate == pytest.approx((12 + 2) / 50)
    assert "c: no outcome in y." in verdict(found)
    table = found.task_tables["y"]
    decisions = {(one.base, one.variant): one.decision for one in table.differences}
    assert decisions == {("a", "b"): "worse", ("a", "c"): "no verdict", ("b", "c"): "no verdict"}
    assert table.overall["c"].rate_with_crashes == 0.0
    assert "c has no outcome here" in table.differences[1].note
    assert "y (not compared) | 25/25  100 % [86, 100]  a" in markdown(found)


def test_a_label_without_any_outcome_is_listed_without_a_verdict():
    evaluations = EVALUATIONS | {"broken": evaluation(open=(0, 25), pull=(0, 25))}
    for base in ("policy", "broken", None):
        found = compare(evaluations, base)
        assert found.tasks == ["open", "pull"]
        assert found.overall["broken"].rate is None
        for one in found.differences:
            mute = "broken" in (one.base, one.variant)
            assert (one.decision == "no verdict") == mute
            assert (one.difference is None) == mute
        assert "broken: no outcome in open, pull." in verdict(found)
        assert "no verdict" in markdown(found)
    assert compare(EVALUATIONS).letters == {
        label: letters for label, letters in found.letters.items() if label != "broken"
    }
    alone = compare({"a": evaluation(t=(0, 25)), "b": evaluation(t=(0, 25))})
    assert [one.decision for one in alone.differences] == ["no verdict"]


def test_crashes_are_counted_by_cause():
    crash = "Traceback (most recent call last):\n  x\nOSError: No space left on device"
    episodes = [
        EpisodeResult(task="t", scenario=i, success=i < 5, failure_message=None) for i in range(8)
    ]
    episodes += [EpisodeResult(task="t", scenario=8, success=None, failure_message=crash)]
    known = Evaluation.of(episodes, 9)
    found = compare(
        {"known": known, "unknown": evaluation(9, t=(4, 2)), "none": evaluation(9, t=3)}
    )
    assert found.crashes == {"known": {"disk full": 1}, "unknown": {"unknown": 2}}
    assert found.overall["known"].rate == pytest.approx(5 / 8)
    assert found.overall["known"].rate_with_crashes == pytest.approx(5 / 9)
    assert found.overall["none"].rate_with_crashes == found.overall["none"].rate


def test_groups_are_checked():
    with pytest.raises(FoundryError, match="no evaluation has task 'pul'"):
        compare(EVALUATIONS, groups={"g": ["pul"]})
    assert parse_groups(["g=open, pull", "h=pull"]) == {"g": ["open", "pull"], "h": ["pull"]}
    for wrong in (["g"], ["g="], ["=open"], ["g=open", "g=pull"]):
        with pytest.raises(FoundryError, match="NAME=Task,Task"):
            parse_groups(wrong)


def test_only_common_tasks_are_compared_and_the_rest_is_shown():
    found = compare(MORE, "policy")
    assert found.tasks == ["open", "pull"]
    assert found.missing == {"push": ["policy", "untrained"]}
    assert found.overall["blind"].counted.n == 50
    assert "| push (not compared) | not evaluated | 25/25" in markdown(found)
    with pytest.raises(FoundryError, match="share no task"):
        compare({"a": evaluation(x=1), "b": evaluation(y=1)}, "a")
    with pytest.raises(FoundryError, match="base 'c' is not among"):
        compare(EVALUATIONS, "c")


def test_a_rate_never_stands_alone():
    found = compare(EVALUATIONS, "policy")
    text = score_text(found.scores["pull"]["untrained"])
    assert text == "0/24  0 % [0, 14], 1 crashed"
    assert "24/25  96 % [80, 100]" in markdown(found)
    assert p_text(0.0123) == "0.012"
    assert p_text(1.5e-9) == "1.5e-09"
    assert p_text(0.0) == "< 1e-12"
    table = list(csv.reader(io.StringIO(as_csv(found))))
    assert ["open", "task", "policy", "25", "24", "0", "0"] in [row[:7] for row in table]


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
    fewer = replace(data, unequal=["episodes_per_task"])
    first = write_report(tmp_path / "fewer.html", fewer).read_text()
    assert "met the same ones, some of them only the first of each task" in first
    page = write_report(tmp_path / "report.html", data).read_text()
    assert "every policy met the same ones" in page
    assert "demo &lt;1&gt;" in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert page.count("data:image/png;base64,") == 1
    shown = page.replace("&#x27;", "'").replace("&quot;", '"').replace("<br>", " ")
    assert verdict(found) in shown
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


def test_long_names_of_tasks_stand_below_their_bars_in_short_lines():
    """LIBERO's, which ran into each other. What all begin with says nothing there."""
    place = "_and_place_it_on_the_plate"
    tasks = [f"pick_up_the_bowl_{where}{place}" for where in ("from_the_table", "on_the_stove")]
    arms = {
        name: evaluation(**dict.fromkeys(tasks, (wins, 0)))
        for name, wins in (("policy", 20), ("blind", 2))
    }
    bars = success_bars(compare(arms, "policy"))
    shown = re.findall(r">([^<>\n]*_[^<>\n]*)<", bars)
    assert {"from_the_", "table_and_", "on_the_", "stove_and_"} <= set(shown)
    assert max(map(len, shown)) <= 90 // 7 + 3
    assert not any("pick_up" in line for line in shown)


def test_files_hold_what_was_found(tmp_path):
    found = compare(MORE, "policy")
    metrics = write_comparison(tmp_path, found)
    assert metrics["success_policy"] == pytest.approx(0.92)
    assert metrics["n_blind"] == 50
    assert metrics["p_untrained"] == found.against_base("untrained").p_corrected
    assert read_comparison(tmp_path / "comparison.json") == found
    assert (tmp_path / "table.md").read_text() == markdown(found)
    assert (tmp_path / "success.svg").read_text() == success_bars(found)
    (tmp_path / "comparison.json").write_text('{"base": "a"}')
    with pytest.raises(FoundryError, match="is of another form"):
        read_comparison(tmp_path / "comparison.json")
