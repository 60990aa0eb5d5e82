"""Simulated comparisons of equal or different arms, and how often each path of a verdict rejects.

Scenarios are as alike for both arms as `correlation` says (Gaussian copula); tasks spread over 1.5
logits around the rate; seeds scatter by `spread` on the logit scale.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from foundry_core.evaluation.statistics.block_test import Block, TaskBlocks, exact_test
from foundry_core.evaluation.statistics.families import holm
from foundry_core.evaluation.statistics.fixed import Arms, barnard
from foundry_core.evaluation.statistics.recipes import seed_test
from foundry_core.evaluation.statistics.walk import Look, WalkDesign, walk

ALPHA = 0.05
Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Setting:
    """tasks × scenarios; rate: of arm A; difference: B's rate is higher by so much (per task).
    seeds: training runs per arm; spread: their standard deviation on the logit scale."""

    tasks: int
    scenarios: int
    rate: float = 0.5
    difference: float = 0.0
    correlation: float = 0.5
    seeds: int = 1
    spread: float = 0.0
    task_logits: float = 1.5

    def outcomes(self, rng: Rng, arms: int = 2) -> np.ndarray:
        """bool [arms, seeds, tasks, scenarios]; every arm after the first is better by
        `difference`."""
        steps = np.linspace(-0.5, 0.5, self.tasks) if self.tasks > 1 else np.zeros(1)
        logits = special.logit(self.rate) + self.task_logits * steps
        base = special.expit(logits)
        shared = rng.standard_normal((self.tasks, self.scenarios))
        found = []
        for arm in range(arms):
            own = base + (self.difference if arm else 0.0)
            scatter = self.spread * rng.standard_normal((self.seeds, 1))
            rates = special.expit(special.logit(np.clip(own, 1e-3, 1 - 1e-3)) + scatter)
            noise = rng.standard_normal((self.seeds, self.tasks, self.scenarios))
            latent = np.sqrt(self.correlation) * shared + np.sqrt(1 - self.correlation) * noise
            found.append(latent < stats.norm.ppf(rates)[:, :, None])
        return np.array(found)


def paired(a: np.ndarray, b: np.ndarray) -> dict[str, TaskBlocks]:
    """Blocks of two arms [seeds, tasks, scenarios] that met the same scenarios."""
    return {
        str(task): TaskBlocks(
            shared=tuple(
                Block(n_a=len(a), a=int(x), n_b=len(b), b=int(y))
                for x, y in zip(a[:, task].sum(0), b[:, task].sum(0), strict=True)
            )
        )
        for task in range(a.shape[1])
    }


def by_pairs(setting: Setting, rng: Rng) -> float:
    a, b = setting.outcomes(rng)
    return exact_test(paired(a, b)).p


def by_partly_shared(setting: Setting, rng: Rng) -> float:
    """Each arm played three quarters of the scenarios, half of them both."""
    a, b = setting.outcomes(rng)
    quarter = setting.scenarios // 4
    tasks = {}
    for name, task in paired(a, b).items():
        only_a = [block for block in task.shared[:quarter]]
        only_b = [block for block in task.shared[-quarter:]]
        rest = Block(
            n_a=sum(block.n_a for block in only_a),
            a=sum(block.a for block in only_a),
            n_b=sum(block.n_b for block in only_b),
            b=sum(block.b for block in only_b),
        )
        tasks[name] = TaskBlocks(shared=task.shared[quarter:-quarter], rest=rest)
    return exact_test(tasks).p


def by_tasks_alone(setting: Setting, rng: Rng) -> float:
    """Nothing shared: stratified by task."""
    a, b = setting.outcomes(rng)
    tasks = {}
    for name, task in paired(a, b).items():
        total = Block(
            n_a=sum(block.n_a for block in task.shared),
            a=sum(block.a for block in task.shared),
            n_b=sum(block.n_b for block in task.shared),
            b=sum(block.b for block in task.shared),
        )
        tasks[name] = TaskBlocks(shared=(), rest=total)
    return exact_test(tasks).p


def by_unbalanced(setting: Setting, rng: Rng) -> float:
    """Tasks of all, a half, a fifth and a tenth of the scenarios in turn; A finished other ones
    than B did."""
    a, b = setting.outcomes(rng)
    shares = (1.0, 0.5, 0.2, 0.1)
    tasks = {}
    for number, (name, task) in enumerate(paired(a, b).items()):
        count = max(2, round(setting.scenarios * shares[number % 4]))
        rest = task.shared[count : count + 2]
        tasks[name] = TaskBlocks(
            shared=task.shared[:count],
            rest=Block(n_a=rest[0].n_a, a=rest[0].a, n_b=rest[1].n_b, b=rest[1].b)
            if len(rest) == 2
            else None,
        )
    return exact_test(tasks).p


def by_pooled_barnard(setting: Setting, rng: Rng) -> float:
    """The plain way: counts of all tasks together, pairing ignored."""
    a, b = setting.outcomes(rng)
    return barnard(Arms(s1=int(a.sum()), n1=a.size, s0=int(b.sum()), n0=b.size))


def by_walk(setting: Setting, rng: Rng, spending: str = "obrien-fleming") -> float:
    """A look after every round; 0 where it separates, 1 where not."""
    a, b = setting.outcomes(rng)
    wins = np.cumsum((a[0] & ~b[0]).sum(axis=0))
    losses = np.cumsum((b[0] & ~a[0]).sum(axis=0))
    looks = [
        Look(rounds=i + 1, wins=int(w), losses=int(x))
        for i, (w, x) in enumerate(zip(wins, losses, strict=True))
    ]
    result = walk(WalkDesign(rounds=setting.scenarios, alpha=ALPHA, spending=spending), looks)
    return 0.0 if result.direction else 1.0


def by_recipe(setting: Setting, rng: Rng) -> float:
    """The verdict over seeds: runs and episodes."""
    return min(recipe_family(setting, rng, arms=2))


def recipe_family(setting: Setting, rng: Rng, arms: int) -> list[float]:
    """Holm-corrected p of every arm against the first."""
    found = setting.outcomes(rng, arms)
    runs = {str(i): tuple(arm.mean(axis=(1, 2))) for i, arm in enumerate(found)}
    raw = []
    for arm in range(1, arms):
        seeds = seed_test(runs["0"], runs[str(arm)], runs).p
        episodes = exact_test(paired(found[0], found[arm])).p
        raw.append(max(seeds or 0.0, episodes))
    return holm(raw)


def rejections(
    path: Callable[[Setting, Rng], float], setting: Setting, tables: int, seed: int
) -> int:
    """Of so many simulated tables, those in which the path rejects at 5 %."""
    rng = np.random.default_rng(seed)
    return sum(path(setting, rng) <= ALPHA for _ in range(tables))
