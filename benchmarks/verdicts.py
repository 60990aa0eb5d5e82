"""How often each path of a verdict calls equal arms different, and different ones different.

    python benchmarks/verdicts.py [--tables 20000] [--processes 2]

A row per path and setting: the share rejected at 5 % among equal arms with its standard error, the
bound it must keep, and the power at a difference beside that of the plain way (pooled counts,
Barnard) on the same data. Exit code 1 where a level is more than two standard errors above
its bound. 20,000 tables a cell take about an hour on two cores.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.evaluation.statistics.simulate import (
    ALPHA,
    LAYOUTS,
    Setting,
    by_blocks,
    by_recipes,
    by_walk,
    rejections,
)
from tests.evaluation.statistics.test_levels import HIGHEST

# tasks, scenarios, a difference worth finding there
SHAPES = ((1, 25, 0.34), (1, 200, 0.12), (4, 50, 0.12), (16, 25, 0.085), (49, 4, 0.13))
EXACT = {name: partial(by_blocks, layout=layout) for name, layout in LAYOUTS.items()}
EXACT |= {
    f"walk {name}": partial(by_walk, spending=name)
    for name in ("linear", "obrien-fleming", "pocock")
}


def cells() -> list[tuple[str, object, Setting, float, float]]:
    """(name, path, setting, bound on the level, difference for the power)"""
    found = []
    for tasks, scenarios, difference in SHAPES:
        for rate in (0.5, 0.9):
            setting = Setting(tasks=tasks, scenarios=scenarios, rate=rate)
            found += [(name, path, setting, ALPHA, difference) for name, path in EXACT.items()]
    for seeds, bound in HIGHEST.items():
        for spread in (0.0, 0.4):
            for tasks, scenarios in ((1, 200), (4, 50), (49, 2)):
                setting = Setting(tasks=tasks, scenarios=scenarios, seeds=seeds, spread=spread)
                found.append((f"{seeds} seeds", by_recipes, setting, bound, 0.15))
    for comparisons in (1, 3, 6):
        path = partial(by_recipes, arms=comparisons + 1)
        setting = Setting(tasks=4, scenarios=25, seeds=3, spread=0.3)
        found.append((f"family of {comparisons}, 3 seeds", path, setting, ALPHA, 0.2))
    return found


def measure(cell, tables: int, number: int) -> tuple[int, int, int]:
    """Rejections among equal arms, at the difference, and by the plain way at the difference."""
    _, path, setting, _, difference = cell
    shifted = replace(setting, difference=min(difference, 0.97 - setting.rate))
    few = max(200, tables // 10)
    null, _ = rejections(path, setting, tables, seed=number)
    return null, *rejections(path, shifted, few, seed=10_000 + number)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    tables, few = options.tables, max(200, options.tables // 10)
    print(
        "| path | tasks × scenarios, rate, seeds, spread | level % (±se) | bound | power | plain |"
    )
    print("|---|---|---|---|---|---|")
    broken = 0
    every = cells()
    with ProcessPoolExecutor(options.processes) as pool:
        futures = [pool.submit(measure, cell, tables, number) for number, cell in enumerate(every)]
        for (name, _, setting, bound, _), future in zip(every, futures, strict=True):
            null, found, plain = future.result()
            level = null / tables
            error = (bound * (1 - bound) / tables) ** 0.5
            broken += level > bound + 2 * error
            shape = f"{setting.tasks}×{setting.scenarios}, {setting.rate}, {setting.seeds}"
            print(
                f"| {name} | {shape}, {setting.spread} | {100 * level:.2f} ± {100 * error:.2f} "
                f"| {100 * bound:.1f} | {100 * found / few:.0f} | {100 * plain / few:.0f} |",
                flush=True,
            )
    print(f"{len(every)} cells, {broken} above their bound")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
