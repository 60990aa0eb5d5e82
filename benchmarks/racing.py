"""What looking early costs and saves: simulated ablations through `Race` beside the fixed design.

    python benchmarks/racing.py [--ablations 1000] [--processes 2]
    python benchmarks/racing.py --recorded HOME [--orders 500]

A base and six variants meet the same scenarios (Gaussian copula, correlation .5; tasks spread over
1.5 logits). Per row: how often an equal pair was separated or a different one the wrong way round,
how often the best was found worse than another, the pairs that differ and were separated (in a race
for the best: the worse arms that were dropped) beside those that one exact test at the end finds at
the same level of a pair, and the episodes played. Exit code 1 where the error that the family
promises to bound is more than two standard errors above 5 %.

--recorded replays what the verdicts and comparisons of a home were reached on, which it only reads:
scenario after scenario in the order in which they were played, and in random orders. Per verdict
and seed: whether the race decides every pair as one exact test over all episodes does at the same
level, the episodes it needs for that, and how often it separates any pair where the outcomes of
each scenario were dealt to the policies at random, so that nothing is to be found (at most 5 %).
"""

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from scipy import special, stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.evaluation.design import Design
from foundry_core.evaluation.score import read_evaluation
from foundry_core.evaluation.statistics.fixed import mcnemar
from foundry_core.evaluation.statistics.racing import Race, RaceDesign

ALPHA, CORRELATION, TASK_LOGITS = 0.05, 0.5, 1.5
LOOKS = 5  # of a replay
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
    best = max(rates)
    raced, fixed, played = replayed(row.design, found)
    truth = {(a, b): int(np.sign(rates[int(a)] - rates[int(b)])) for a, b in fixed}
    wrong = any(seen not in (0, truth[pair]) for pair, seen in raced.items())
    dropped = str(rates.index(best)) in _worse(raced)
    if row.design.family == "best":
        others = [str(arm) for arm, rate in enumerate(rates) if rate < best]
        power = [[arm in _worse(decided) for arm in others] for decided in (raced, fixed)]
    else:
        differ = [pair for pair in truth if truth[pair]]
        power = [[decided[pair] == truth[pair] for pair in differ] for decided in (raced, fixed)]
    shares = [np.mean(one) if one else np.nan for one in power]
    return np.array([wrong, dropped, *shares, played])


Directions = dict[tuple[str, str], int]


def replayed(design: Design, found: np.ndarray) -> tuple[Directions, Directions, float]:
    """What a race over these outcomes, bool [arms, tasks, scenarios], decides of each pair, what
    one exact test over all of them decides at the same level, the share that the race played."""
    rounds = found.shape[2]
    arms = tuple(str(number) for number in range(len(found)))
    race = Race(RaceDesign(design=design, rounds=rounds, arms=arms))
    known: dict[str, dict[tuple[str, int], bool]] = {arm: {} for arm in arms}
    played, before = 0, 0
    for end in design.ends(rounds):
        for arm in race.running:
            part = found[int(arm), :, before:end]
            played += part.size
            known[arm] |= {
                (str(task), before + at): bool(success)
                for (task, at), success in np.ndenumerate(part)
            }
        race.look(end, known)
        before = end
    level = design.pair_level(len(arms))
    fixed = {
        pair: _at_the_end(found[int(pair[0])], found[int(pair[1])], level)
        for pair in race.design.pairs
    }
    raced = {pair: race.decided[pair].direction if pair in race.decided else 0 for pair in fixed}
    return raced, fixed, played / found.size


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


def recorded(home: Path) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """(which verdict and seed, its labels, bool [arms, tasks, scenarios]) of every verdict and
    comparison of a home with scenarios that all arms played; the base first."""
    for path in sorted((home / "store").glob("*/*/artifact.json")):
        artifact = json.loads(path.read_text())
        if artifact["kind"] not in ("verdict", "compare"):
            continue
        evaluations = {
            one["label"]: home / "store" / one["kind"] / one["key"]
            for one in artifact["inputs"]
            if one["slot"] == "evaluations"
        }
        for number, named in enumerate(_seeds(artifact, evaluations)):
            played = {label: read_evaluation(evaluations[one]) for label, one in named.items()}
            table = _table([one.outcomes for one in played.values()])
            if table is not None:
                yield f"{artifact['key'][:12]}, seed {number}", list(played), table


def _seeds(artifact: dict, evaluations: dict) -> list[dict[str, str]]:
    """For each seed, variant → the label of its evaluation; none of a race: its rest is unknown."""
    recipe = artifact["recipe"]
    variants = recipe.get("variants") or {label: [label] for label in evaluations}
    if recipe.get("race") or len(variants) < 2:
        return []
    base = recipe.get("base") or next(iter(variants))
    order = [base, *(name for name in variants if name != base)]
    count = min(len(labels) for labels in variants.values())
    return [{name: variants[name][number] for name in order} for number in range(count)]


def _table(outcomes: list[dict[str, dict[int, bool | None]]]) -> np.ndarray | None:
    """Of the scenarios that came to an end for all, as many of each task."""
    tasks = [task for task in outcomes[0] if all(task in one for one in outcomes)]
    common = [
        [at for at in outcomes[0][task] if all(one[task].get(at) is not None for one in outcomes)]
        for task in tasks
    ]
    rounds = min(map(len, common), default=0)
    if rounds < LOOKS:
        return None
    return np.array(
        [
            [
                [one[task][at] for at in kept[:rounds]]
                for task, kept in zip(tasks, common, strict=True)
            ]
            for one in outcomes
        ],
        bool,
    )


def replay_home(home: Path, orders: int) -> int:
    """Prints a row for each verdict, seed and design; 1 where too much is separated by chance."""
    print("| verdict | policies | tasks × rounds | design | as recorded | episodes % |", end="")
    print(" in random orders: same % | episodes % | dealt at random: separated % |")
    print(f"|{'---|' * 9}")
    broken = 0
    for name, labels, found in recorded(home):
        rng = np.random.default_rng(0)
        for family, spending in (
            ("base", "obrien-fleming"),
            ("base", "linear"),
            ("best", "linear"),
        ):
            design = Design(alpha=ALPHA, spending=spending, family=family, looks=LOOKS)
            raced, fixed, share = replayed(design, found)
            again = [replayed(design, _shuffled(found, rng)) for _ in range(orders)]
            chance = [replayed(design, _dealt(found, rng))[0] for _ in range(orders)]
            separated = np.mean([any(one.values()) for one in chance])
            bound = ALPHA + 2 * sqrt(ALPHA * (1 - ALPHA) / orders)
            broken += family == "base" and separated > bound
            cells = [
                name,
                ", ".join(labels),
                f"{found.shape[1]} × {found.shape[2]}",
                f"{family}, {spending}, {LOOKS} looks",
                "the same" if _agree(family, raced, fixed) else "another",
                f"{100 * share:.0f}",
                f"{100 * np.mean([_agree(family, one, all_) for one, all_, _ in again]):.0f}",
                f"{100 * np.mean([played for *_, played in again]):.0f}",
                f"{100 * separated:.1f}" if family == "base" else "–",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
    return 1 if broken else 0


def _agree(family: str, raced: Directions, fixed: Directions) -> bool:
    """Whether every pair is decided alike; of a race for the best, whether the same arms drop out:
    who has dropped out is compared with nobody any more."""
    return _worse(raced) == _worse(fixed) if family == "best" else raced == fixed


def _shuffled(found: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The scenarios of each task in another order, the same for all arms."""
    order = np.argsort(rng.random(found.shape[1:]), axis=-1)
    return np.take_along_axis(found, np.broadcast_to(order, found.shape), axis=-1)


def _dealt(found: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The outcomes of each scenario among the arms at random: all arms are alike."""
    return np.take_along_axis(found, np.argsort(rng.random(found.shape), axis=0), axis=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ablations", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--recorded", type=Path, metavar="HOME")
    parser.add_argument("--orders", type=int, default=500)
    options = parser.parse_args()
    if options.recorded is not None:
        return replay_home(options.recorded, options.orders)
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
