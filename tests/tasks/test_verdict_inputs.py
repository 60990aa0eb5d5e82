"""A verdict's evaluations answer the same questions; what was imported says so in its file."""

import pytest

from foundry_core.errors import FoundryError
from foundry_core.pipeline.imports import Import
from foundry_core.pipeline.stage import Upstream
from tasks.evaluate import EvaluateRecipe
from tasks.verdict import Verdict, VerdictRecipe


def check(**recipes):
    evaluations = {
        label: Upstream(name=label, kind="evaluate", recipe=recipe)
        for label, recipe in recipes.items()
    }
    variants = {label: (label,) for label in recipes}
    recipe = VerdictRecipe(base=next(iter(recipes)), variants=variants)
    Verdict.check(recipe, {"evaluations": evaluations})


IMPORTED = Import(kind="evaluate", digest="sha256:" + "ab" * 32, alias="m@paper")
OURS = EvaluateRecipe(first_scenario=0)
OTHER = EvaluateRecipe(first_scenario=100)


def test_an_imported_evaluation_may_be_base_or_variant():
    check(paper=IMPORTED, ours=OURS)
    check(ours=OURS, paper=IMPORTED)
    check(paper=IMPORTED, paper2=IMPORTED)


@pytest.mark.parametrize("order", [("paper", "a", "b"), ("a", "paper", "b")])
def test_ours_must_still_agree(order):
    recipes = {"paper": IMPORTED, "a": OURS, "b": OTHER}
    with pytest.raises(
        FoundryError, match="b is evaluated with first_scenario = 100, not 0 as a demands"
    ):
        check(**{label: recipes[label] for label in order})
