"""Simulated comparisons of equal or different arms, and how often each path of a verdict rejects.

Scenarios are as alike for both arms as `correlation` says (Gaussian copula); tasks spread over 1.5
logits around the rate; seeds scatter by `spread` on the logit scale.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from foundry_core.evaluation.statistics.block_test import Block, TaskBlocks, exact_test
from foundry_core.evaluation.statistics.families import holm
from foundry_core.evaluation.statistics.fixed import Arms, barnard
from foundry_core.evaluation.statistics.recipes import seed_test
from foundry_core.evaluation.statistics.spending import Spending
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


def partly_shared(a: np.ndarray, b: np.ndarray) -> dict[str, TaskBlocks]:
    """Each arm played three quarters of the scenarios, half of them both."""
    quarter = a.shape[2] // 4
    return {
        name: TaskBlocks(
            shared=task.shared[quarter:-quarter],
            rest=_rest(task.shared[:quarter], task.shared[-quarter:]),
        )
        for name, task in paired(a, b).items()
    }


def unshared(a: np.ndarray, b: np.ndarray) -> dict[str, TaskBlocks]:
    """Nothing is known to be shared: stratified by task alone."""
    return {
        name: TaskBlocks(shared=(), rest=_rest(task.shared, task.shared))
        for name, task in paired(a, b).items()
    }


def unbalanced(a: np.ndarray, b: np.ndarray) -> dict[str, TaskBlocks]:
    """Tasks of all, a half, a fifth and a tenth of the scenarios in turn."""
    shares = (1.0, 0.5, 0.2, 0.1)
    return {
        name: TaskBlocks(shared=task.shared[: max(2, round(len(task.shared) * shares[i % 4]))])
        for i, (name, task) in enumerate(paired(a, b).items())
    }


def _rest(only_a: Sequence[Block], only_b: Sequence[Block]) -> Block:
    return Block(
        n_a=sum(block.n_a for block in only_a),
        a=sum(block.a for block in only_a),
        n_b=sum(block.n_b for block in only_b),
        b=sum(block.b for block in only_b),
    )


Layout = Callable[[np.ndarray, np.ndarray], dict[str, TaskBlocks]]
LAYOUTS: dict[str, Layout] = {
    "pairs": paired,
    "partly shared": partly_shared,
    "unshared": unshared,
    "unbalanced": unbalanced,
}


def by_blocks(setting: Setting, rng: Rng, layout: Layout) -> tuple[float, float]:
    a, b = setting.outcomes(rng)
    tasks = layout(a, b)
    return exact_test(tasks).p, plain(tasks)


def plain(tasks: Mapping[str, TaskBlocks]) -> float:
    """The plain way: counts of all tasks together, pairing ignored."""
    blocks = [block for task in tasks.values() for block, n in task.blocks for _ in range(n)]
    total = _rest(blocks, blocks)
    return barnard(Arms(s1=total.a, n1=total.n_a, s0=total.b, n0=total.n_b))


def by_walk(setting: Setting, rng: Rng, spending: Spending) -> tuple[float, float]:
    """A look after every round; 0 where it separates, 1 where not."""
    a, b = setting.outcomes(rng)
    wins = np.cumsum((a[0] & ~b[0]).sum(axis=0))
    losses = np.cumsum((b[0] & ~a[0]).sum(axis=0))
    looks = [
        Look(rounds=i + 1, wins=int(w), losses=int(x))
        for i, (w, x) in enumerate(zip(wins, losses, strict=True))
    ]
    result = walk(WalkDesign(rounds=setting.scenarios, alpha=ALPHA, spending=spending), looks)
    return 0.0 if result.direction else 1.0, plain(paired(a, b))


def by_recipes(setting: Setting, rng: Rng, arms: int = 2) -> tuple[float, float]:
    """The verdict over seeds, runs and episodes: the smallest Holm-corrected p of every arm against
    the first."""
    found = setting.outcomes(rng, arms)
    runs = {str(i): tuple(arm.mean(axis=(1, 2))) for i, arm in enumerate(found)}
    raw, pooled = [], []
    for arm in range(1, arms):
        seeds = seed_test(runs["0"], runs[str(arm)], runs).p
        tasks = paired(found[0], found[arm])
        raw.append(max(seeds or 0.0, exact_test(tasks).p))
        pooled.append(plain(tasks))
    return min(holm(raw)), min(holm(pooled))


Path = Callable[[Setting, Rng], tuple[float, float]]


def rejections(path: Path, setting: Setting, tables: int, seed: int) -> tuple[int, int]:
    """Of so many simulated tables, those in which the path rejects at 5 %, and the plain way."""
    rng = np.random.default_rng(seed)
    found = np.array([path(setting, rng) for _ in range(tables)]) <= ALPHA
    return int(found[:, 0].sum()), int(found[:, 1].sum())
