"""What a verdict promises: among equal arms at most 5 % are called different, whatever the shape of
the data; and what it gains. The long form, with more tables a cell, is benchmarks/verdicts.py."""

from dataclasses import replace
from functools import partial

import pytest

from tests.evaluation.statistics.simulate import (
    ALPHA,
    BOTH,
    FOUR,
    HIGHEST,
    A,
    Setting,
    beside_plain,
    by_blocks,
    by_contrasts,
    by_recipes,
    by_strata,
    by_walk,
    ordered,
    rejections,
)

TABLES = 500


def most(level: float, tables: int) -> float:
    """Rejections that a true level reaches with a chance of about one in 2000."""
    return level * tables + 3.3 * (level * (1 - level) * tables) ** 0.5


SHAPES = [Setting(tasks=1, scenarios=50), Setting(tasks=16, scenarios=8, rate=0.85)]


@pytest.mark.parametrize("setting", SHAPES, ids=["few tasks", "many tasks"])
@pytest.mark.parametrize("played", ["all", "partly", "unbalanced", "crashes"])
def test_exact_paths_keep_their_level(played, setting):
    found = rejections(by_blocks, replace(setting, played=played), TABLES, seed=1)
    assert found <= most(ALPHA, TABLES)


@pytest.mark.parametrize("setting", SHAPES, ids=["few tasks", "many tasks"])
def test_unpaired_tasks_keep_their_level(setting):
    found = rejections(by_strata, replace(setting, correlation=0.0), TABLES, seed=1)
    assert found <= most(ALPHA, TABLES)


@pytest.mark.parametrize("played", ["all", "crashes"])
@pytest.mark.parametrize("spending", ["linear", "obrien-fleming", "pocock"])
def test_looking_after_every_round_keeps_the_level(spending, played):
    path = partial(by_walk, spending=spending)
    setting = Setting(tasks=4, scenarios=40, played=played)
    assert rejections(path, setting, TABLES, seed=2) <= most(ALPHA, TABLES)


@pytest.mark.parametrize("seeds", HIGHEST)
def test_recipes_keep_their_level_where_seeds_scatter(seeds):
    setting = Setting(tasks=4, scenarios=10, seeds=seeds, spread=0.4)
    found = rejections(by_recipes, setting, TABLES, seed=3)
    assert found <= most(HIGHEST[seeds], TABLES)


@pytest.mark.parametrize("arms", [4, 7])
def test_families_keep_their_level(arms):
    setting = Setting(tasks=2, scenarios=10, seeds=3, spread=0.3, arms=arms)
    assert rejections(by_recipes, setting, TABLES // 2, seed=4) <= most(ALPHA, TABLES // 2)


def test_counting_episodes_where_seeds_scatter_does_not():
    """What the rule is for: pooled counts call a third of equal recipes different here."""
    setting = Setting(tasks=4, scenarios=50, seeds=3, spread=0.4)
    found, pooled = beside_plain(by_recipes, setting, 200, seed=6)
    assert found <= most(HIGHEST[3], 200)
    assert pooled >= 0.3 * 200


def test_pairing_wins_where_outcomes_are_alike():
    setting = Setting(tasks=4, scenarios=50, difference=0.12)
    found, pooled = beside_plain(by_blocks, setting, 200, seed=5)
    assert found >= pooled + 20


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_factors_keep_their_level(seeds):
    """The family of a grid where nothing matters, and an interaction that is not there beside a
    main effect that is."""
    nothing = Setting(tasks=2, scenarios=10, seeds=seeds, spread=0.3 * (seeds > 1), arms=4)
    way = partial(by_contrasts, settings=FOUR)
    bound = HIGHEST.get(seeds, ALPHA)
    assert rejections(way, nothing, 200, seed=7) <= most(bound, 200)
    beside = replace(nothing, rate=0.4, always=(0.0, 0.0, 0.2, 0.2))
    way = partial(by_contrasts, settings=FOUR, texts=(A, BOTH))
    assert rejections(way, beside, 200, seed=8) <= most(bound, 200)


@pytest.mark.parametrize("seeds", [1, 3])
def test_trends_keep_their_level_and_find_more_than_pairs(seeds):
    way = partial(by_contrasts, settings=ordered(3))
    flat = Setting(tasks=2, scenarios=10, seeds=seeds, spread=0.3 * (seeds > 1), arms=3)
    assert rejections(way, flat, 200, seed=9) <= most(HIGHEST.get(seeds, ALPHA), 200)
    rising = replace(flat, difference=0.4, pattern=(0, 0.5, 1))
    pairs = by_recipes if seeds > 1 else by_blocks
    assert rejections(way, rising, 60, seed=9) >= rejections(pairs, rising, 60, seed=9)
