"""What a search finds and what its verdict is worth: simulated searches, judged in two ways.

    python benchmarks/halving.py [--searches 2000] [--processes 2]

Variants have a true success rate after the whole training, spread normally around the base's. A
rung at a part of the budget sees another rate, of which `agree` is the correlation with the one at
the end; episodes meet the same scenarios (Gaussian copula, correlation .5, tasks spread over 1.5
logits). `search.best` chooses. Per row: how often the best variant, and one within 5 points of it,
is the finalist; what it lacks on the best; training and episodes as a share of playing all to the
end; how often the finalist is called better than the base, and how often although it is not: by an
exact test on scenarios that no rung played, and, to see why, on those on which it was chosen. Exit
code 1 where the former is more than two standard errors above 5 %.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from scipy import special, stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.evaluation.statistics.fixed import mcnemar
from foundry_core.evaluation.statistics.halving import best, rung_sizes

ALPHA, CORRELATION, TASK_LOGITS, BASE = 0.05, 0.5, 1.5, 0.5
TASKS, NEAR = 4, 0.05


@dataclass(frozen=True, kw_only=True)
class Row:
    """variants; budgets: of the rungs, as parts of the largest; scenarios of a task; agree: the
    correlation of a rung's true rates with those at the end; spread of the latter, logits."""

    variants: int = 16
    budgets: tuple[float, ...] = (1 / 9, 1 / 3, 1.0)
    scenarios: int = 25
    agree: float = 0.8
    spread: float = 0.6

    @property
    def played(self) -> tuple[int, ...]:
        """Variants on each rung that chooses."""
        sizes = rung_sizes(self.variants, len(self.budgets), 3, 1)
        return tuple(size for number, size in enumerate(sizes) if not number or size > 1)


ROWS = (
    Row(spread=0.0, budgets=(1.0,)),
    Row(spread=0.0, budgets=(1.0,), variants=64),
    Row(spread=0.0),
    Row(budgets=(1.0,)),
    Row(budgets=(1.0,), scenarios=100),
    Row(agree=1.0),
    Row(),
    Row(agree=0.5),
    Row(agree=0.0),
    Row(scenarios=100),
    Row(variants=64, budgets=(1 / 27, 1 / 9, 1 / 3, 1.0)),
    Row(variants=64, budgets=(1 / 27, 1 / 9, 1 / 3, 1.0), agree=0.5),
)


def rates(row: Row, rng: np.random.Generator) -> np.ndarray:
    """logits [rungs + 1, variants + 1]: of each rung and, last, at the end; the base first."""
    end = rng.standard_normal(row.variants)
    found = [np.append(0.0, row.spread * end)]
    for budget in reversed(row.budgets[: len(row.played)]):
        agree = 1.0 if budget == 1.0 else row.agree
        noise = rng.standard_normal(row.variants)
        seen = agree * end + sqrt(1 - agree**2) * noise
        found.append(np.append(0.0, row.spread * seen))
    return special.logit(BASE) + np.stack(found[::-1])


def play(logits: np.ndarray, shared: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """bool [arms, tasks, scenarios]; shared: of the scenarios, [tasks, scenarios]"""
    steps = TASK_LOGITS * np.linspace(-0.5, 0.5, TASKS)
    chance = special.expit(logits[:, None] + steps)
    noise = rng.standard_normal((len(logits), *shared.shape))
    latent = sqrt(CORRELATION) * shared + sqrt(1 - CORRELATION) * noise
    return latent < stats.norm.ppf(chance)[:, :, None]


def search(row: Row, rng: np.random.Generator) -> np.ndarray:
    """(is the best, is near it, lacks, called better, and falsely: on other scenarios, on the
    same)"""
    truth = rates(row, rng)
    shape = (TASKS, row.scenarios)
    shared = rng.standard_normal(shape)
    left = list(range(1, row.variants + 1))
    for rung, size in enumerate((*row.played[1:], 1)):
        seen = play(truth[rung][[0, *left]], shared, rng)
        scores = dict(zip(map(str, left), seen[1:].mean(axis=(1, 2)).tolist(), strict=True))
        left = [int(name) for name in best(scores, size)]
        if size == 1:
            chosen_on = seen[[0, 1 + list(scores).index(str(left[0]))]]
    end = special.expit(truth[-1])
    winner = left[0]
    lacks = end[1:].max() - end[winner]
    final = truth[-1][[0, winner]]
    fresh = play(final, rng.standard_normal(shape), rng)
    called = [_better(*fresh), _better(*chosen_on)]
    wrong = [found and end[winner] <= end[0] for found in called]
    return np.array([lacks == 0, lacks <= NEAR, lacks, *called, *wrong], float)


def _better(base: np.ndarray, found: np.ndarray) -> bool:
    wins, losses = int((found & ~base).sum()), int((base & ~found).sum())
    return wins > losses and mcnemar(wins, losses) <= ALPHA


def measure(row: Row, searches: int, seed: int) -> np.ndarray:
    """The means over so many searches."""
    rng = np.random.default_rng(seed)
    return np.mean([search(row, rng) for _ in range(searches)], axis=0)


def costs(row: Row) -> tuple[float, float]:
    """Training steps, each variant's trunk continued, and episodes with the finalist's; as parts of
    playing all variants to the end."""
    done = np.zeros(row.variants)
    for size, budget in zip(row.played, row.budgets, strict=False):
        done[:size] = budget
    done[0] = 1.0
    return done.sum() / row.variants, (sum(row.played) + 1) / row.variants


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--searches", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    count, broken = options.searches, 0
    print(
        "| variants, rungs | episodes | spread, agree | best % | near % | lacks | training % |",
        end="",
    )
    print(" episodes % | better % | falsely % | same scenarios: better % | falsely % |")
    print(f"|{'---|' * 12}")
    with ProcessPoolExecutor(options.processes) as pool:
        results = pool.map(measure, ROWS, [count] * len(ROWS), range(len(ROWS)))
        for row, found in zip(ROWS, results, strict=True):
            is_best, near, lacks, fresh, same, wrong, wrong_same = found
            broken += wrong > ALPHA + 2 * sqrt(ALPHA * (1 - ALPHA) / count)
            training, episodes = costs(row)
            known = ["–"] * 3
            if row.spread:
                known = [f"{100 * is_best:.0f}", f"{100 * near:.0f}", f"{100 * lacks:.1f}"]
            shares = [training, episodes, fresh, wrong, same, wrong_same]
            cells = [
                f"{row.variants}, {'→'.join(map(str, row.played))}",
                f"{TASKS} × {row.scenarios}",
                f"{row.spread}, {row.agree}",
                *known,
                *(f"{100 * share:.1f}" for share in shares),
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
