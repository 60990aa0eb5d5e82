"""What looking early costs and saves: simulated ablations through `Race` beside the fixed design.

    python benchmarks/racing.py [--ablations 1000] [--processes 2]

A base and six variants meet the same scenarios (Gaussian copula, correlation .5; tasks spread over
1.5 logits). Per row: how often an equal pair was separated or a different one the wrong way round,
how often the best was found worse than another, the pairs that differ and were separated (in a race
for the best: the worse arms that were dropped) beside those that one exact test at the end finds at
the same level of a pair, and the episodes played. Exit code 1 where the error that the family
promises to bound is more than two standard errors above 5 %.
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

from foundry_core.evaluation.design import Design
from foundry_core.evaluation.statistics.fixed import mcnemar
from foundry_core.evaluation.statistics.racing import Race, RaceDesign

ALPHA, CORRELATION, TASK_LOGITS = 0.05, 0.5, 1.5
RATES = {
    "all equal, .5": (0.5,) * 7,
    "all equal, .9": (0.9,) * 7,
    "one better, .65 and .5": (0.5, 0.65, *(0.5,) * 5),
    "one worse, .5 and .7": (0.7, 0.5, *(0.7,) * 5),
    "spread .7 to .4, base .55": (0.55, 0.7, 0.65, 0.6, 0.5, 0.45, 0.4),
}
# family, spending, which rates
RACES = (
    *(("base", spending, rates) for spending in ("obrien-fleming", "linear") for rates in RATES),
    *(("base", "e-value", rates) for rates in ("all equal, .5", "spread .7 to .4, base .55")),
    *(
        ("pairs", "obrien-fleming", rates)
        for rates in ("all equal, .5", "spread .7 to .4, base .55")
    ),
    *(
        ("best", "obrien-fleming", rates)
        for rates in ("all equal, .5", "one better, .65 and .5", "spread .7 to .4, base .55")
    ),
)
SHAPES = ((4, 50, 10), (16, 25, 5))  # tasks, scenarios of each, looks


@dataclass(frozen=True, kw_only=True)
class Row:
    design: Design
    rates: str
    tasks: int
    rounds: int


def rows() -> list[Row]:
    return [
        Row(
            design=Design(alpha=ALPHA, spending=spending, family=family, looks=looks),
            rates=rates,
            tasks=tasks,
            rounds=rounds,
        )
        for tasks, rounds, looks in SHAPES
        for family, spending, rates in RACES
    ]


def outcomes(row: Row, rng: np.random.Generator) -> np.ndarray:
    """bool [arms, tasks, scenarios]"""
    steps = np.linspace(-0.5, 0.5, row.tasks)
    rates = special.expit(special.logit(np.array(RATES[row.rates]))[:, None] + TASK_LOGITS * steps)
    shared = rng.standard_normal((row.tasks, row.rounds))
    noise = rng.standard_normal((len(rates), row.tasks, row.rounds))
    latent = sqrt(CORRELATION) * shared + sqrt(1 - CORRELATION) * noise
    return latent < stats.norm.ppf(rates)[:, :, None]


def ablation(row: Row, rng: np.random.Generator) -> np.ndarray:
    """(wrongly separated, best dropped, share of differences found, the same of the fixed design,
    share of episodes played); shares are nan where nothing differs."""
    found = outcomes(row, rng)
    rates = RATES[row.rates]
    arms = tuple(str(number) for number in range(len(rates)))
    race = Race(RaceDesign(design=row.design, rounds=row.rounds, arms=arms))
    known: dict[str, dict[tuple[str, int], bool]] = {arm: {} for arm in arms}
    played, before = 0, 0
    for end in row.design.ends(row.rounds):
        for arm in race.running:
            part = found[int(arm), :, before:end]
            played += part.size
            known[arm] |= {
                (str(task), before + at): bool(success)
                for (task, at), success in np.ndenumerate(part)
            }
        race.look(end, known)
        before = end
    level, best = row.design.pair_level(len(arms)), max(rates)
    fixed = {
        pair: _at_the_end(found[int(pair[0])], found[int(pair[1])], level)
        for pair in race.design.pairs
    }
    raced = {pair: race.decided[pair].direction if pair in race.decided else 0 for pair in fixed}
    truth = {(a, b): int(np.sign(rates[int(a)] - rates[int(b)])) for a, b in fixed}
    wrong = any(seen not in (0, truth[pair]) for pair, seen in raced.items())
    dropped = str(rates.index(best)) in _worse(raced)
    if row.design.family == "best":
        others = [arm for arm in arms if rates[int(arm)] < best]
        power = [[arm in _worse(decided) for arm in others] for decided in (raced, fixed)]
    else:
        differ = [pair for pair in truth if truth[pair]]
        power = [[decided[pair] == truth[pair] for pair in differ] for decided in (raced, fixed)]
    shares = [np.mean(one) if one else np.nan for one in power]
    return np.array([wrong, dropped, *shares, played / found.size])


def _at_the_end(a: np.ndarray, b: np.ndarray, level: float) -> int:
    """The direction that one exact test over all episodes finds."""
    wins, losses = int((a & ~b).sum()), int((b & ~a).sum())
    return (1 if wins > losses else -1) if mcnemar(wins, losses) <= level else 0


def _worse(directions: dict[tuple[str, str], int]) -> set[str]:
    return {pair[seen > 0] for pair, seen in directions.items() if seen}


def measure(row: Row, ablations: int, seed: int) -> np.ndarray:
    """The means over so many ablations."""
    rng = np.random.default_rng(seed)
    return np.mean([ablation(row, rng) for _ in range(ablations)], axis=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ablations", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    every, count, broken = rows(), options.ablations, 0
    print("| tasks × rounds, looks | family, spending | rates | wrong % | best dropped % |", end="")
    print(" found % | fixed % | episodes % |\n|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(options.processes) as pool:
        results = pool.map(measure, every, [count] * len(every), range(len(every)))
        for row, (wrong, worse, caught, fixed, played) in zip(every, results, strict=True):
            promised = worse if row.design.family == "best" else wrong
            broken += promised > ALPHA + 2 * sqrt(ALPHA * (1 - ALPHA) / count)
            power = ["–", "–"] if np.isnan(caught) else [f"{100 * x:.0f}" for x in (caught, fixed)]
            shown = f"{row.tasks} × {row.rounds}, {row.design.looks}"
            design = f"{row.design.family}, {row.design.spending}"
            cells = [shown, design, row.rates, f"{100 * wrong:.1f}", f"{100 * worse:.1f}", *power]
            print(f"| {' | '.join(cells)} | {100 * played:.0f} |", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
