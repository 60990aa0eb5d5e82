"""Simulated comparisons of equal or different arms, and how often each path of a verdict rejects.

Scenarios are as alike for both arms as `correlation` says (Gaussian copula); tasks spread over 1.5
logits around the rate; seeds scatter by `spread` on the logit scale. A table is int8 [arms, seeds,
tasks, scenarios]: 1 success, 0 failure, -1 an episode that was not played or crashed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import special

from foundry_core.evaluation.comparison.arms import Arm
from foundry_core.evaluation.comparison.contrasts import contrasts
from foundry_core.evaluation.comparison.factors import Settings
from foundry_core.evaluation.score import Evaluation
from foundry_core.evaluation.statistics.block_test import Block, TaskBlocks, exact_test
from foundry_core.evaluation.statistics.families import holm
from foundry_core.evaluation.statistics.fixed import Arms, barnard
from foundry_core.evaluation.statistics.recipes import seed_test
from foundry_core.evaluation.statistics.spending import Spending
from foundry_core.evaluation.statistics.walk import Look, WalkDesign, walk

ALPHA = 0.05
# What the verdict about recipes is known to keep, by the number of seeds: the highest cell of a
# grid of 138, 138, 168, 71 and 46 settings of 500 to 2000 tables each.
HIGHEST = {2: 0.067, 3: 0.047, 4: 0.054, 5: 0.053, 10: 0.068}
# Of a task's scenarios, in turn.
_SIZES = (1.0, 0.5, 0.2, 0.1)
# Values drawn at once.
_CHUNK = 400_000
Rng = np.random.Generator
# all: both arms played everything. partly: each three quarters, half of them both. unbalanced:
# tasks of other sizes. crashes: 15 % of the first arm's episodes crashed and 5 % of the others'.
Played = Literal["all", "partly", "unbalanced", "crashes"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """tasks × scenarios; rate: of arm A; difference: the others' is higher by so much (per task).
    seeds: training runs per arm; spread: their standard deviation on the logit scale. pattern: how
    much of the difference each arm has; default: all but the first the whole. always: what is added
    to each arm's rate besides, also where the difference is 0."""

    tasks: int
    scenarios: int
    rate: float = 0.5
    difference: float = 0.0
    correlation: float = 0.5
    seeds: int = 1
    spread: float = 0.0
    arms: int = 2
    played: Played = "all"
    pattern: tuple[float, ...] = ()
    always: tuple[float, ...] = ()

    def tables(self, count: int, rng: Rng) -> Iterator[np.ndarray]:
        at_once = max(1, _CHUNK // (self.arms * self.seeds * self.tasks * self.scenarios))
        for start in range(0, count, at_once):
            yield from self._draw(min(at_once, count - start), rng)

    def _draw(self, count: int, rng: Rng) -> np.ndarray:
        """int8 [count, arms, seeds, tasks, scenarios]"""
        steps = 1.5 * np.linspace(-0.5, 0.5, self.tasks) if self.tasks > 1 else np.zeros(1)
        base = special.expit(special.logit(self.rate) + steps)
        better = self.difference * np.array(self.pattern or [0.0, *[1.0] * (self.arms - 1)])
        better += np.array(self.always or [0.0] * self.arms)
        rates = special.logit(np.clip(base + better[:, None], 1e-3, 1 - 1e-3))
        scatter = self.spread * rng.standard_normal((count, self.arms, self.seeds, 1))
        bound = special.ndtri(special.expit(rates[:, None] + scatter))
        shape = (count, self.arms, self.seeds, self.tasks, self.scenarios)
        shared = rng.standard_normal((count, 1, 1, self.tasks, self.scenarios))
        latent = np.sqrt(1 - self.correlation) * rng.standard_normal(shape)
        latent += np.sqrt(self.correlation) * shared
        return np.where(self._missing(shape, rng), -1, latent < bound[..., None]).astype(np.int8)

    def _missing(self, shape: tuple[int, ...], rng: Rng) -> np.ndarray:
        """bool, of that shape or one that spreads to it"""
        if self.played == "crashes":
            chance = np.where(np.arange(self.arms) > 0, 0.05, 0.15)
            return rng.random(shape) < chance[:, None, None, None]
        scenario = np.arange(self.scenarios)
        if self.played == "partly":
            quarter = self.scenarios // 4
            first, last = scenario < quarter, scenario >= self.scenarios - quarter
            return np.stack([last] + [first] * (self.arms - 1))[:, None, None]
        if self.played == "unbalanced":
            sizes = [max(2, round(self.scenarios * _SIZES[t % 4])) for t in range(self.tasks)]
            return scenario >= np.array(sizes)[:, None]
        return np.zeros((), dtype=bool)


@lru_cache(maxsize=4096)
def _block(n_a: int, a: int, n_b: int, b: int) -> Block:
    return Block(n_a=n_a, a=a, n_b=n_b, b=b)


def blocks(a: np.ndarray, b: np.ndarray, *, paired: bool = True) -> dict[str, TaskBlocks]:
    """Of two arms [seeds, tasks, scenarios]; paired: scenarios of one number are the same."""
    counts = np.stack([(a >= 0).sum(0), (a > 0).sum(0), (b >= 0).sum(0), (b > 0).sum(0)])
    shared = (counts[0] > 0) & (counts[2] > 0) & paired
    rest = np.where(shared, 0, counts).sum(axis=2).T.tolist()
    found = {}
    for task, alone in enumerate(rest):
        mine = counts[:, task, shared[task]].T.tolist()
        whole = TaskBlocks(
            shared=tuple(_block(*row) for row in mine),
            rest=_block(*alone) if alone[0] and alone[2] else None,
        )
        if whole.shared or whole.rest:
            found[str(task)] = whole
    return found


Way = Callable[[np.ndarray], float]  # a table → p
# Of four arms: a changes, b changes, both do; and of ordered values.
FOUR = {"0": {"a": 1, "b": 1}, "1": {"a": 2}, "2": {"b": 2}, "3": {"a": 2, "b": 2}}
A, B, BOTH = "a: 1 → 2", "b: 1 → 2", "a: 1 → 2 × b: 1 → 2"


def ordered(arms: int) -> Settings:
    return {str(arm): {"a": arm} for arm in range(arms)}


def by_blocks(table: np.ndarray) -> float:
    return exact_test(blocks(table[0], table[1])).p


def by_strata(table: np.ndarray) -> float:
    """Nothing is known to be shared: stratified by task alone."""
    return exact_test(blocks(table[0], table[1], paired=False)).p


def by_walk(table: np.ndarray, spending: Spending) -> float:
    """A look after every round; 0 where it separates, 1 where not."""
    a, b = table[0, 0], table[1, 0]
    wins = np.cumsum(((a == 1) & (b == 0)).sum(axis=0)).tolist()
    losses = np.cumsum(((a == 0) & (b == 1)).sum(axis=0)).tolist()
    looks = [
        Look(rounds=rounds, wins=won, losses=lost)
        for rounds, (won, lost) in enumerate(zip(wins, losses, strict=True), 1)
    ]
    result = walk(WalkDesign(rounds=len(looks), alpha=ALPHA, spending=spending), looks)
    return 0.0 if result.direction else 1.0


def by_recipes(table: np.ndarray) -> float:
    """The verdict over seeds, runs and episodes: the smallest Holm-corrected p of every arm against
    the first."""
    rates = (table > 0).mean(axis=3).mean(axis=2)
    runs = {str(arm): tuple(own) for arm, own in enumerate(rates.tolist())}
    found = []
    for arm in range(1, len(table)):
        seeds = seed_test(runs["0"], runs[str(arm)], runs).p
        found.append(max(seeds or 0.0, exact_test(blocks(table[0], table[arm])).p))
    return min(holm(found))


def by_contrasts(table: np.ndarray, settings: Settings, texts: tuple[str, ...] = ()) -> float:
    """The smallest corrected p of a table's main effects, interactions and trends, or of those that
    are called so. settings: of the arms, "0" the base."""
    arms = {}
    for arm, runs in enumerate(table.tolist()):
        evaluations = {str(at): _evaluation(run) for at, run in enumerate(runs)}
        arms[str(arm)] = Arm(str(arm), evaluations)
    tasks = [str(task) for task in range(table.shape[2])]
    found = contrasts(arms, tasks, settings, "0", ALPHA).contrasts
    own = [one for one in found if not texts or one.text in texts]
    return min(1.0 if one.p_corrected is None else one.p_corrected for one in own)


def _evaluation(tasks: list[list[int]]) -> Evaluation:
    outcomes = {
        str(task): {at: None if one < 0 else one > 0 for at, one in enumerate(scenarios)}
        for task, scenarios in enumerate(tasks)
    }
    return Evaluation(budget=len(tasks[0]), outcomes=outcomes)


@dataclass
class Plain:
    """The plain way: counts of all tasks together, pairing and seeds ignored, Barnard's test. Its p
    falls as the Wald statistic grows, so most tables need none computed."""

    _rejects: dict[tuple[float, int, int], float] = field(default_factory=dict)
    _keeps: dict[tuple[float, int, int], float] = field(default_factory=dict)

    def rejects(self, table: np.ndarray) -> bool:
        """Any arm against the first, Bonferroni (as Holm for the smallest p)."""
        level = ALPHA / (len(table) - 1)
        n, s = (table >= 0).sum(axis=(1, 2, 3)).tolist(), (table > 0).sum(axis=(1, 2, 3)).tolist()
        return any(
            self._one(Arms(s1=s[arm], n1=n[arm], s0=s[0], n0=n[0]), level)
            for arm in range(1, len(table))
        )

    def _one(self, arms: Arms, level: float) -> bool:
        key = (level, arms.n1, arms.n0)
        pooled = (arms.s1 + arms.s0) / (arms.n1 + arms.n0)
        if pooled in (0, 1):
            return False
        gap = arms.s1 / arms.n1 - arms.s0 / arms.n0
        wald = abs(gap) / (pooled * (1 - pooled) * (1 / arms.n1 + 1 / arms.n0)) ** 0.5
        if wald >= self._rejects.get(key, np.inf):
            return True
        if wald <= self._keeps.get(key, 0.0):
            return False
        rejects = barnard(arms) <= level
        (self._rejects if rejects else self._keeps)[key] = wald
        return rejects


def rejections(way: Way, setting: Setting, tables: int, seed: int) -> int:
    """Of so many simulated tables, those in which that way rejects at 5 %."""
    rng = np.random.default_rng(seed)
    return sum(way(table) <= ALPHA for table in setting.tables(tables, rng))


def beside_plain(way: Way, setting: Setting, tables: int, seed: int) -> tuple[int, int]:
    """The same, and those in which the plain way rejects."""
    plain, rng = Plain(), np.random.default_rng(seed)
    found = [(way(t) <= ALPHA, plain.rejects(t)) for t in setting.tables(tables, rng)]
    return sum(one for one, _ in found), sum(other for _, other in found)
