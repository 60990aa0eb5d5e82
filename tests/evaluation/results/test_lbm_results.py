"""Result files: round trip, the published tree, and what must be refused."""

import json
from pathlib import Path

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.results.lbm import read_tree, write_results
from foundry_core.evaluation.score import EpisodeResult, Score, score_of, total
from foundry_core.evaluation.task_names import pascal_case, snake_case

# Left out of the published means: no training data had them.
UNSEEN_TASKS = (
    "BimanualPlaceAvocadoFromBowlIntoBin",
    "BimanualPutSpatulaOnPlateFromUtensilCrock",
    "PutMugInCenterOfTable",
)


def episode(scenario: int, success: bool | None = True, **fields) -> EpisodeResult:
    fields = {"task": "push-button", "seconds": 1.5, **fields}
    return EpisodeResult(scenario=scenario, success=success, **fields)


def put(tree: Path, model: str, stamp: str, **document) -> Path:
    path = tree / model / "PushButton" / "rollouts" / stamp / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    return path


def entry(scenario: int, success: bool | None = True, **fields) -> dict:
    return {
        "skill_type": "push_button",
        "scenario_index": scenario,
        "is_success": success,
        "is_pending": False,
        "total_time": 2.0,
        "failure_message": None,
        **fields,
    }


def test_names_go_both_ways():
    assert pascal_case("put_mug_on_saucer") == "PutMugOnSaucer"
    assert snake_case("PutMugOnSaucer") == "put_mug_on_saucer"
    assert pascal_case("pick-place-v3") == "PickPlaceV3" == pascal_case("PickPlaceV3")
    for name in ("BimanualPutRedBellPepperInBin", "TurnCupUpsideDown"):
        assert pascal_case(snake_case(name)) == name


def test_round_trip_and_counts(tmp_path):
    episodes = [
        episode(2, False, failure_message="ran out of steps"),
        episode(0, True),
        episode(1, None, pending=True, seconds=0.0),
        episode(3, None, failure_message="Traceback (most recent call last):\n  x\nOSError: full"),
        episode(0, True, task="open-drawer"),
    ]
    paths = write_results(tmp_path, "policy", episodes, requested=4, budget=10)
    assert [p.relative_to(tmp_path).parts[:3] for p in paths] == [
        ("policy", "OpenDrawer", "rollouts"),
        ("policy", "PushButton", "rollouts"),
    ]
    results = read_tree(tmp_path)
    assert results.budget == 10
    score = results.scores()["policy"]["PushButton"]
    assert score == Score(n=2, successes=1, pending=1, crashed=1)
    read = results.episodes["policy", "PushButton"]
    assert [e.status for e in read] == ["success", "pending", "failure", "crashed"]
    assert read[3].failure_message.endswith("OSError: full")
    written = json.loads(paths[1].read_text())
    assert (written["num_evaluated"], written["num_success"]) == (2, 1)
    assert written["success_rate"] == 0.5
    assert written["evaluations"][3]["is_success"] is None


def test_bytes_do_not_depend_on_the_order_of_arrival(tmp_path):
    episodes = [episode(i, i % 2 == 0) for i in range(6)]
    (a,) = write_results(tmp_path / "a", "m", episodes, requested=6, budget=6)
    (b,) = write_results(tmp_path / "b", "m", reversed(episodes), requested=6, budget=6)
    assert a.read_bytes() == b.read_bytes()
    write_results(tmp_path / "b", "m", episodes[:3], requested=6, budget=6)
    assert [p.name for p in b.parent.iterdir()] == ["results.json"]


def test_one_models_folder_is_a_tree_too(tmp_path):
    write_results(tmp_path, "results", [episode(0)], requested=1, budget=1)
    assert read_tree(tmp_path / "results").models == ["results"]


def test_sets_are_told_apart(tmp_path):
    for name in ("OSS", "internal"):
        write_results(tmp_path / name, "m", [episode(0)], requested=1, budget=1)
    assert read_tree(tmp_path).models == ["OSS/m", "internal/m"]
    assert read_tree(tmp_path / "OSS").models == ["m"]


def test_a_fault_recorded_as_failure_is_a_crash(tmp_path):
    fault = entry(1, False, failure_message="Traceback (most recent call last):\nKeyError: 'time'")
    put(tmp_path, "m", "s", max_sample_size_per_model=5, evaluations=[entry(0), fault])
    episodes = read_tree(tmp_path).episodes["m", "PushButton"]
    assert score_of(episodes) == Score(n=1, successes=1, crashed=1)
    assert [e.recorded_as_failure for e in episodes] == [False, True]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": {"evaluations": [entry(0)]}}, "max_sample_size_per_model: Field required"),
        (
            {
                "a": {"max_sample_size_per_model": 5, "evaluations": [entry(0)]},
                "b": {"max_sample_size_per_model": 6, "evaluations": [entry(1)]},
            },
            "conflicting budgets",
        ),
        (
            {
                "a": {"max_sample_size_per_model": 5, "evaluations": [entry(0)]},
                "b": {"max_sample_size_per_model": 5, "evaluations": [entry(0)]},
            },
            "scenario 0 is in",
        ),
        (
            {"a": {"max_sample_size_per_model": 1, "evaluations": [entry(0), entry(1)]}},
            "2 completed episodes, the budget is 1",
        ),
        ({"a": {"max_sample_size_per_model": 1, "evaluations": [{"x": 1}]}}, "skill_type"),
        ({"a": [1]}, "another form"),
        ({}, "no results.json"),
    ],
)
def test_refused_trees(tmp_path, files, message):
    for stamp, document in files.items():
        path = tmp_path / "m" / "PushButton" / "rollouts" / stamp / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(document))
    with pytest.raises(FoundryError, match=message):
        read_tree(tmp_path)


def test_refused_episodes(tmp_path):
    with pytest.raises(FoundryError, match="scenario 0 is there twice"):
        write_results(tmp_path, "m", [episode(0), episode(0)], requested=2, budget=2)
    with pytest.raises(FoundryError, match="budget is 1"):
        write_results(tmp_path, "m", [episode(0)], requested=2, budget=1)
    with pytest.raises(FoundryError, match="pending"):
        episode(0, True, pending=True)


@pytest.fixture(scope="module")
def published(shared_data):
    return read_tree(shared_data / "lbm_eval_results" / "OSS")


def test_published_tree(published):
    assert published.budget == 200
    scores = published.scores()
    assert len(scores) == 9
    assert {len(tasks) for tasks in scores.values()} == {19}
    whole = total(score for tasks in scores.values() for score in tasks.values())
    assert (whole.n, whole.crashed, whole.pending) == (9 * 19 * 200 - 196, 196, 0)
    episodes = [e for several in published.episodes.values() for e in several]
    assert sum(e.recorded_as_failure for e in episodes) == 196


@pytest.mark.parametrize(
    ("model", "percent"),
    [
        ("Foundry-Qwen3VLA-2.1B", 72.38),
        ("Foundry-Qwen3VLA-2.1B-FT", 75.78),
        ("Foundry-Qwen3VLA-2.1B-ST", 56.41),
        ("Foundry-VLA-1.7B-full", 34.12),
        ("Foundry-VLA-1.7B-sim", 41.00),
        ("Foundry-VLA-1.7B-ST", 43.50),
    ],
)
def test_published_means(published, model, percent):
    """Each task weighs the same; crashes count as the file counted them, as failures."""
    seen = {t: s for t, s in published.scores()[model].items() if t not in UNSEEN_TASKS}
    assert len(seen) == 16
    recorded = sum(s.successes / (s.n + s.crashed) for s in seen.values()) / 16
    assert 100 * recorded == pytest.approx(percent, abs=0.006)
    assert sum(s.rate for s in seen.values()) / 16 >= recorded
