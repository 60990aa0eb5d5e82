"""The journal lets a killed evaluation go on; the tree is right after every episode."""

import json

import pytest

from foundry_core.evaluation.results.lbm import read_tree
from foundry_core.evaluation.rollout.episodes import plan_episodes, run_episodes
from foundry_core.evaluation.rollout.tally import Tally
from foundry_core.evaluation.score import Score, score_of, scores_by_task, write_episodes
from tests.evaluation.toy_benchmark import Line, LineEnvironment, Walker


@pytest.fixture
def places(tmp_path):
    LineEnvironment.struck.clear()
    (tmp_path / "scratch").mkdir()
    return tmp_path / "out", tmp_path / "scratch"


def tally_of(places, seed=0, record=1):
    plans = plan_episodes(Line(), ("near", "far"), first=0, count=4, seed=seed, record=record)
    return Tally(*places, plans, requested=4, budget=8)


def tree_bytes(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_an_interrupted_evaluation_goes_on_and_ends_as_if_it_had_not_been(places, tmp_path):
    class Killed(Exception):
        pass

    def until_third(rollout):
        first.add(rollout)
        if first.score.pending == 5:
            raise Killed

    first = tally_of(places)
    with pytest.raises(Killed):
        run_episodes(Line(), Walker(), first.missing(), on_rollout=until_third)
    with (places[1] / "episodes.jsonl").open("a") as journal:
        journal.write('{"task": "far", "sce')
    second = tally_of((tmp_path / "again", places[1]))
    assert len(second.missing()) == 5
    run_episodes(Line(), Walker(), second.missing(), on_rollout=second.add)
    results = second.finish()
    third = tally_of((tmp_path / "third", places[1]))
    assert third.missing() == [], "the torn line takes none of the next attempt's with it"

    (tmp_path / "other").mkdir()
    whole = tally_of((tmp_path / "whole", tmp_path / "other"))
    run_episodes(Line(), Walker(), whole.missing(), on_rollout=whole.add)
    assert results == whole.finish()
    again, once = tree_bytes(tmp_path / "again"), tree_bytes(tmp_path / "whole")
    # The same pictures: x264 does not always find the same bytes for them.
    again, once = (
        {p: b"" if p.suffix == ".mp4" else data for p, data in tree.items()}
        for tree in (again, once)
    )
    assert again == once
    names = {str(p) for p in tree_bytes(tmp_path / "whole")}
    assert any(n.startswith("frames/near/000000_") and n.endswith(".png") for n in names)
    assert any(n.startswith("records/videos/far/000000_") for n in names)


def test_the_tree_shows_what_is_pending_after_every_episode(places):
    tally = tally_of(places)
    seen = []

    def look(rollout):
        tally.add(rollout)
        (scores,) = read_tree(places[0] / "results").scores().values()
        seen.append({task: (score.n, score.pending) for task, score in scores.items()})

    run_episodes(Line(), Walker(), tally.missing(), on_rollout=look)
    assert seen[0] == {"Near": (1, 3)}
    assert seen[-1] == {"Near": (4, 0), "Far": (4, 0)}


def test_crashes_are_tried_again_by_the_next_attempt(places):
    broken = Line(faults={1: 2})
    first = tally_of(places)
    run_episodes(broken, Walker(), first.missing(), on_rollout=first.add)
    assert scores_by_task(first.finish())["near"].crashed == 1
    second = tally_of(places)
    assert [p.scenario.index for p in second.missing()] == [1, 1]


def test_another_seed_does_not_take_over_the_journal(places):
    first = tally_of(places)
    run_episodes(Line(), Walker(), first.missing(), on_rollout=first.add)
    assert len(tally_of(places, seed=1).missing()) == 8


def test_scores_and_rows_leave_crashes_out(places, tmp_path):
    tally = tally_of(places)
    plans = tally.missing()
    run_episodes(Line(faults={1: 9}), Walker(noise=0.0), plans[:6], on_rollout=tally.add)
    assert tally.score == Score(n=4, successes=4, crashed=2, pending=2)
    results = tally.finish()
    assert scores_by_task(results) == {
        "near": Score(n=3, successes=3, crashed=1),
        "far": Score(n=1, successes=1, crashed=1, pending=2),
    }
    assert score_of(results) == tally.score
    write_episodes(tmp_path, results)
    rows = [json.loads(line) for line in (tmp_path / "episodes.jsonl").open()]
    assert len(rows) == 6, "none of what was not run"
    assert rows[1] == {
        "task": "near",
        "scenario": 1,
        "success": None,
        "steps": 1,
        "seconds": results[1].seconds,
        "crash": "ArithmeticError",
        "seed": results[1].seed,
    }
