"""Statements about several variants at once: main effects, interactions, trends, dose curves.

All are weighted sums of the variants' success rates, and judged as pairs are: by the training runs
(Welch's t of the weighted sum) and by the episodes, whichever p is larger; all of a table are one
family, corrected by Holm. The episodes' part is exact for main effects and trends (labels swapped
within a scenario, everything else the same); an interaction has no labels to swap, and is a t over
scenarios.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from math import prod, sqrt
from statistics import fmean

import numpy as np
from scipy import special

from foundry_core.evaluation.comparison.arms import Arm
from foundry_core.evaluation.comparison.factors import Component, Factor, Grid, grids
from foundry_core.evaluation.comparison.factors import Settings as VariantSettings
from foundry_core.evaluation.comparison.result import Contrast, ContrastKind, Dose, DosePoint
from foundry_core.evaluation.statistics.block_test import exact_test, task_blocks
from foundry_core.evaluation.statistics.detectable import (
    contrast_difference,
    difference_by_deviation,
)
from foundry_core.evaluation.statistics.families import holm
from foundry_core.evaluation.statistics.intervals import clopper_pearson
from foundry_core.evaluation.statistics.recipes import SeedTest, seed_contrast
from foundry_core.evaluation.statistics.trend import Levels, permutation_p, trend_test

_Z95 = 1.959964
Weights = Mapping[str, float]
Strata = Sequence[Sequence[str]]  # variants that differ in one factor alone, by its levels
Asked = tuple[Factor, Component]
# What a crash of each arm counts as; arms that are not named: as nothing.
Crashes = Mapping[str, bool]


@dataclass(frozen=True)
class EpisodeTest:
    """What the episodes say, however the crashes count."""

    name: str
    p: Callable[[Crashes], float]


@dataclass(frozen=True, kw_only=True)
class Found:
    """contrasts: of one family. doses: a curve for every ordered factor."""

    contrasts: Sequence[Contrast] = field(default_factory=list)
    doses: Sequence[Dose] = field(default_factory=list)


def contrasts(
    arms: Mapping[str, Arm],
    tasks: Sequence[str],
    settings: VariantSettings,
    base: str,
    alpha: float = 0.05,
) -> Found:
    """Of the variants that have settings. tasks: those that all of them have outcomes in. Nothing
    where the variants are neither a grid nor three values in an order, or one is not finished."""
    known = {name: settings[name] for name in arms if name in settings}
    if base not in known or not tasks or any(arm.pending(tasks) for arm in arms.values()):
        return Found()
    found = [_Judged(grid=grid, arms=arms, tasks=tasks) for grid in grids(known, base)]
    tests = [test for one in found for test in one.tests()]
    if not tests:
        return Found()
    return Found(
        contrasts=_corrected(tests, alpha),
        doses=[dose for one in found for dose in one.doses()],
    )


@dataclass(frozen=True, kw_only=True)
class _Test:
    """bounded: p with the crashes counted against what is found; p itself where they cannot turn
    it. seeds: what the runs alone say. deviation: of the estimate over scenarios."""

    contrast: Contrast
    bounded: float
    seeds: SeedTest
    deviation: float


def _corrected(tests: Sequence[_Test], alpha: float) -> list[Contrast]:
    plain = holm([test.contrast.p_value for test in tests])
    bounded = holm([test.bounded for test in tests])
    size, found = len(tests), []
    for test, p, against in zip(tests, plain, bounded, strict=True):
        one = replace(test.contrast, p_corrected=p, size=size)
        if against <= alpha:
            decision = "higher" if one.estimate > 0 else "lower"
            one = replace(one, decision=decision, p_corrected=against)
        elif p <= alpha:
            note = "the crashes, counted against it, turn the verdict"
            one = replace(one, decision="no verdict", p_corrected=None, note=note)
        else:
            one = replace(one, detectable=_detectable(test, alpha / size))
        found.append(one)
    return found


def _detectable(test: _Test, level: float) -> float | None:
    episodes = difference_by_deviation(test.deviation, level) or None
    error, degrees = test.seeds.deviation, test.seeds.degrees
    if not error or degrees is None or episodes is None:
        return episodes
    return max(episodes, contrast_difference(error, degrees, level))


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """A grid with its arms."""

    grid: Grid
    arms: Mapping[str, Arm]
    tasks: Sequence[str]

    @cached_property
    def rates(self) -> dict[str, tuple[float, ...]]:
        return {name: self.arms[name].rates(self.tasks) for name in self.grid.cells.values()}

    def tests(self) -> list[_Test]:
        """Main effects, trends, then the interactions of two."""
        factors = self.grid.factors
        alone = len(factors) == 1  # whose pairs are the table's own
        asked = [(f, c) for f in factors for c in f.components if c.trend or not alone]
        found = [self._main(factor, component) for factor, component in asked]
        found += [
            self._interaction(one, other)
            for one, other in combinations(asked, 2)
            if one[0] is not other[0]
        ]
        return found

    def doses(self) -> list[Dose]:
        return [self._dose(factor) for factor in self.grid.factors if factor.ordered]

    def _weights(self, *of: tuple[Factor, Mapping[str, float]]) -> dict[str, float]:
        """variant → weight: the product of its levels' weights, averaged over other factors."""
        by_path = {factor.path: weights for factor, weights in of}
        others = prod(len(f.levels) for f in self.grid.factors if f.path not in by_path)
        found = {}
        for point, name in self.grid.cells.items():
            levels = zip(self.grid.factors, point, strict=True)
            found[name] = (
                prod(by_path[f.path].get(level, 0.0) for f, level in levels if f.path in by_path)
                / others
            )
        return found

    def _main(self, factor: Factor, component: Component) -> _Test:
        kind: ContrastKind = "trend" if component.trend else "main effect"
        weights = self._weights((factor, component.weights))
        strata = self._strata(factor, list(component.weights))
        way = _all_levels if component.trend else _two_levels
        listed = None
        if component.trend and len(self.grid.factors) == 1:
            listed = permutation_p([self.rates[self.grid.cells[x,]] for x in factor.levels])
        text = f"{factor.path}: {component.text}"
        episodes = way(self.arms, strata, self.tasks)
        return self._judge(kind, text, [factor.path], weights, episodes, listed)

    def _strata(self, factor: Factor, levels: Sequence[str]) -> list[list[str]]:
        """For every combination of the other factors' levels the variants of these levels."""
        at = [f.path for f in self.grid.factors].index(factor.path)
        found: dict[tuple[str, ...], dict[str, str]] = {}
        for point, name in self.grid.cells.items():
            found.setdefault((*point[:at], *point[at + 1 :]), {})[point[at]] = name
        return [[cells[level] for level in levels] for cells in found.values()]

    def _interaction(self, one: Asked, other: Asked) -> _Test:
        weights = self._weights((one[0], one[1].weights), (other[0], other[1].weights))
        text = " × ".join(f"{factor.path}: {component.text}" for factor, component in (one, other))

        def p(crashes: Crashes) -> float:
            return _by_scenario(self.arms, weights, self.tasks, crashes).p

        episodes = EpisodeTest("t over scenarios", p)
        paths = [one[0].path, other[0].path]
        return self._judge("interaction", text, paths, weights, episodes)

    def _judge(
        self,
        kind: ContrastKind,
        text: str,
        paths: Sequence[str],
        weights: Weights,
        episodes: EpisodeTest,
        listed: float | None = None,
    ) -> _Test:
        seeds = seed_contrast(weights, self.rates)
        by = _by_scenario(self.arms, weights, self.tasks)
        width = max(seeds.half_width() or 0.0, _Z95 * by.deviation)
        p_episodes = episodes.p({})
        p = p_episodes if seeds.p is None else max(p_episodes, seeds.p)
        most = sum(abs(weight) for weight in weights.values()) / 2
        found = Contrast(
            kind=kind,
            paths=tuple(paths),
            text=text,
            estimate=seeds.difference,
            low=max(-most, seeds.difference - width),
            high=min(most, seeds.difference + width),
            basis=seeds.basis,
            test=f"{episodes.name}{_SEED_TESTS[seeds.basis]}",
            p_value=p,
            p_episodes=p_episodes,
            p_seeds=seeds.p,
            p_permutation=listed,
        )
        bounded = self._bounded(weights, episodes, found)
        return _Test(contrast=found, bounded=bounded, seeds=seeds, deviation=by.deviation)

    def _bounded(self, weights: Weights, episodes: EpisodeTest, found: Contrast) -> float:
        """p where crash shares differ and crashes count against what was found."""
        involved = [name for name, weight in weights.items() if weight]
        shares = {self.arms[name].crash_share(self.tasks) for name in involved}
        if len(shares) == 1:
            return found.p_value
        up = found.estimate > 0
        against = {name: (weights[name] > 0) != up for name in involved}
        estimate = _by_scenario(self.arms, weights, self.tasks, against).estimate
        kept = estimate > 0 if up else estimate < 0
        return max(found.p_value, episodes.p(against)) if kept else 1.0

    def _dose(self, factor: Factor) -> Dose:
        count = len(factor.levels)
        scores = [at - (count - 1) / 2 for at in range(count)]
        squares = sum(score**2 for score in scores)
        points = []
        for level, score in zip(factor.levels, scores, strict=True):
            own = self._weights((factor, {level: 1.0}))
            line = {
                other: 1 / count + score * at / squares
                for other, at in zip(factor.levels, scores, strict=True)
            }
            rate, low, high = self._interval(own)
            fit, fit_low, fit_high = self._interval(self._weights((factor, line)))
            seeds = [self.rates[name] for name, weight in own.items() if weight]
            points.append(
                DosePoint(
                    value=float(factor.values[level]),
                    rate=rate,
                    low=low,
                    high=high,
                    seeds=[fmean(same) for same in zip(*seeds, strict=False)],
                    line=fit,
                    line_low=fit_low,
                    line_high=fit_high,
                )
            )
        return Dose(path=factor.path, points=points)

    def _interval(self, weights: Weights) -> tuple[float, float, float]:
        """A rate with its 95 % interval over runs and episodes; of one variant never narrower than
        the exact one of its counts."""
        seeds = seed_contrast(weights, self.rates)
        deviation = _by_scenario(self.arms, weights, self.tasks).deviation
        width = max(seeds.half_width() or 0.0, _Z95 * deviation)
        low, high = seeds.difference - width, seeds.difference + width
        involved = [name for name, weight in weights.items() if weight]
        if len(involved) == 1:
            counted = self.arms[involved[0]].counted(self.tasks)
            exact = clopper_pearson(counted.successes, counted.n)
            low, high = min(low, exact[0]), max(high, exact[1])
        rate, low, high = (min(1.0, max(0.0, value)) for value in (seeds.difference, low, high))
        return rate, low, high


_SEED_TESTS = {
    "none": "",
    "provisional": " and pooled t over seeds",
    "recipe": " and Welch's t over seeds",
}


@dataclass(frozen=True, kw_only=True)
class _ByScenario:
    """A weighted sum of rates, scenario by scenario: estimate, its standard deviation over
    scenarios, the degrees of freedom."""

    estimate: float
    deviation: float
    degrees: int

    @property
    def p(self) -> float:
        return float(2 * special.stdtr(max(1, self.degrees), -abs(self.estimate) / self.deviation))


def _by_scenario(
    arms: Mapping[str, Arm], weights: Weights, tasks: Sequence[str], crashes: Crashes | None = None
) -> _ByScenario:
    """With two scenarios added, of the largest and the smallest sum there can be: few scenarios
    that happen to agree would give an interval of no width. Scenarios that not all arms have are
    left out."""
    involved = {name: weight for name, weight in weights.items() if weight}
    crashed = crashes or {}
    sums = [
        [
            sum(w * fmean(outcomes[name][scenario]) for name, w in involved.items())
            for scenario in set.intersection(*(set(one) for one in outcomes.values()))
        ]
        for task in tasks
        for outcomes in [{n: arms[n].outcomes(task, crashed.get(n)) for n in involved}]
    ]
    played = [own for own in sums if own]
    values = [value for own in played for value in own]
    ends = [sum(w for w in involved.values() if (w > 0) == up) for up in (True, False)]
    spread = float(np.var([*values, *ends]))
    per_task = sum(1 / len(own) for own in played)
    return _ByScenario(
        estimate=fmean(fmean(own) for own in played) if played else 0.0,
        deviation=sqrt(spread * per_task) / max(1, len(played)),
        degrees=len(values) - 1,
    )


def _two_levels(arms: Mapping[str, Arm], strata: Strata, tasks: Sequence[str]) -> EpisodeTest:
    """Labels swapped within a scenario and one setting of all other factors. strata: (reference,
    level) of each."""

    def p(crashes: Crashes) -> float:
        blocks = {
            f"{task}/{number}": task_blocks(
                arms[level].outcomes(task, crashes.get(level)),
                arms[reference].outcomes(task, crashes.get(reference)),
            )
            for number, (reference, level) in enumerate(strata)
            for task in tasks
        }
        return exact_test({name: one for name, one in blocks.items() if one}).p

    return EpisodeTest("exact block test", p)


def _all_levels(arms: Mapping[str, Arm], strata: Strata, tasks: Sequence[str]) -> EpisodeTest:
    """The same for values in their order."""

    def p(crashes: Crashes) -> float:
        blocks = {
            f"{task}/{number}": _levels([arms[n].outcomes(task, crashes.get(n)) for n in names])
            for number, names in enumerate(strata)
            for task in tasks
        }
        return trend_test(blocks).p

    return EpisodeTest("exact trend test", p)


def _levels(outcomes: Sequence[Mapping[int, tuple[bool, ...]]]) -> list[Levels]:
    """A block for every scenario that several values share, one for all the rest."""
    found, alone = [], [list[bool]() for _ in outcomes]
    for scenario in sorted(set().union(*outcomes)):
        played = [one.get(scenario, ()) for one in outcomes]
        if sum(map(bool, played)) > 1:
            found.append(_block(played))
        else:
            for own, more in zip(alone, played, strict=True):
                own.extend(more)
    return [*found, _block(alone)] if sum(map(bool, alone)) > 1 else found


def _block(played: Sequence[Sequence[bool]]) -> Levels:
    return Levels(n=tuple(map(len, played)), successes=tuple(map(sum, played)))
