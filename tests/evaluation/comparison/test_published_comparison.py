"""Nine published policies on 19 tasks of LBM Eval: counts, crashes, means and letters."""

from itertools import combinations

import pytest

from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.comparison.groups import known_groups
from foundry_core.evaluation.results.lbm import read_tree
from foundry_core.evaluation.score import Score
from foundry_core.evaluation.task_names import pascal_case
from foundry_core.files import read_json

PUBLISHED = {  # % over the 16 main tasks, crashes as failures
    "Foundry-Qwen3VLA-2.1B": 72.38,
    "Foundry-Qwen3VLA-2.1B-FT": 75.78,
    "Foundry-Qwen3VLA-2.1B-ST": 56.41,
    "Foundry-VLA-1.7B-full": 34.12,
    "Foundry-VLA-1.7B-sim": 41.00,
    "Foundry-VLA-1.7B-ST": 43.50,
}
CAUSES = {
    "solver": 63,
    "disk full": 49,
    "missing object": 44,
    "rejected client": 21,
    "non-finite pose": 19,
}
# In the order of their names: 2.1B, -FT, -ST, 1.7B-FT, -FT-sim, -ST, -full, -real, -sim.
LETTERS = {
    "all tasks": "b a c f e d g h f",
    "main": "b a c e d d e f d",
    "unseen": "e a b d d c f g ef",
}
BY_TASK = {
    "BimanualPlaceAppleFromBowlIntoBin": "a a a bc b c bc d b",
    "BimanualPlaceAvocadoFromBowlIntoBin": "de a b c c c d e c",
    "BimanualPlaceFruitFromBowlIntoBin": "a a e bcd bc d cd f b",
    "BimanualPutRedBellPepperInBin": "a a b cd b bc d e b",
    "BimanualPutSpatulaOnPlateFromDryingRack": "ab a a cd bc bc d e bc",
    "BimanualPutSpatulaOnPlateFromTable": "ab a b cd cd d cd e c",
    "BimanualPutSpatulaOnPlateFromUtensilCrock": "d a a bc b a cd d d",
    "BimanualStackPlatesOnTableFromDryingRack": "bc ab a d bc a d e c",
    "BimanualStoreCerealBoxUnderShelf": "a a ab c bc ab c d bc",
    "PlaceCupByCoaster": "a a b d d c de e d",
    "PushCoasterToCenterOfTable": "a a ab c c b c d c",
    "PushCoasterToMug": "a a a bc bc b bc c bc",
    "PutBananaOnSaucer": "a a b b b bc b c bc",
    "PutKiwiInCenterOfTable": "a a b bc bc bc bc c bc",
    "PutMugInCenterOfTable": "d a b bc d cd e e e",
    "PutMugOnSaucer": "a a b b bc c bc d bc",
    "PutSpatulaInUtensilCrock": "a a a b b b b c b",
    "TurnCupUpsideDown": "ab a bc cde de cd cde f e",
    "TurnMugRightsideUp": "ab a b cd d c cd e cd",
}


@pytest.fixture(scope="module")
def tree(shared_data):
    return shared_data / "lbm_eval_results" / "OSS"


@pytest.fixture(scope="module")
def found(tree):
    return compare(read_tree(tree).evaluations())


def test_counts_are_the_files_own_less_the_crashes(tree, found):
    for file in tree.rglob("results.json"):
        successes = [one["is_success"] for one in read_json(file)["evaluations"]]
        score = found.scores[pascal_case(file.parts[-4])][file.parts[-5]]
        assert score.successes == sum(successes)
        assert score.n + score.crashed == len(successes) == 200


def test_crashes_by_cause(found):
    totals = {cause: sum(row.get(cause, 0) for row in found.crashes.values()) for cause in CAUSES}
    assert totals == CAUSES
    assert sum(sum(row.values()) for row in found.crashes.values()) == 196
    assert sum(one.counted.crashed for one in found.overall.values()) == 196


def test_means_over_the_main_tasks(found):
    main = found.groups["main"]
    assert (len(main.tasks), len(found.groups["unseen"].tasks)) == (16, 3)
    for label, percent in PUBLISHED.items():
        one = main.overall[label]
        assert 100 * one.rate_with_crashes == pytest.approx(percent, abs=0.006)
        assert one.rate >= one.rate_with_crashes


def test_letters(found):
    tables = {**found.summaries(), **found.task_tables}
    letters = {
        name: " ".join(table.letters[label] for label in found.labels)
        for name, table in tables.items()
    }
    assert letters == LETTERS | BY_TASK
    for table in tables.values():
        assert table.size == 36
        separated = {frozenset((one.base, one.variant)): one for one in table.differences}
        for pair in combinations(found.labels, 2):
            one = separated[frozenset(pair)]
            shares = set(table.letters[pair[0]]) & set(table.letters[pair[1]])
            assert bool(shares) != one.separated
            assert one.separated == (one.p_corrected is not None and one.p_corrected <= 0.05)


def test_verdicts_that_crashes_turn(found):
    """2.7 points apart over the main tasks, and 2.1 % against 0.6 % crashed."""
    turned = [one for one in found.groups["main"].differences if one.turned]
    assert [(one.base.removeprefix("Foundry-VLA-"), one.decision) for one in turned] == [
        ("1.7B-FT", "no verdict"),
        ("1.7B-FT-sim", "no verdict"),
        ("1.7B-ST", "no verdict"),
    ]
    assert "2.1 % of Foundry-VLA-1.7B-full and 0.6 % of Foundry-VLA-1.7B-FT" in turned[0].note
    assert not any(one.turned for one in found.differences)


def test_the_groups_are_known_by_their_tasks(found):
    assert list(known_groups(found.tasks)) == ["main", "unseen"]
    assert known_groups([*found.tasks, "PutMugOnShelf"]) == {}
    assert found.scores["TurnCupUpsideDown"]["Foundry-VLA-1.7B-real"] == Score(n=200, successes=1)
