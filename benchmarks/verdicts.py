"""How often each path of a verdict calls equal arms different, and different ones different.

    python benchmarks/verdicts.py [--tables 20000] [--processes 2] [--out FILE]

A row per path and setting: the share rejected at 5 % among equal arms, the bound it must keep, and
the power at a difference, from a tenth as many tables, beside that of the plain way (pooled counts,
Barnard) on the same data. Exit code 1 where a level is more than two standard errors above its
bound, or where pairing scenarios whose outcomes are alike finds less than the plain way. With --out
the rows are kept in a Markdown file, and a later run goes on where the last one ended. 20,000
tables a cell take half an hour on two cores.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import product
from math import sqrt
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.files import hash64
from tests.evaluation.statistics.simulate import (
    ALPHA,
    BOTH,
    FOUR,
    HIGHEST,
    A,
    Setting,
    Way,
    beside_plain,
    by_blocks,
    by_contrasts,
    by_recipes,
    by_strata,
    by_walk,
    ordered,
    rejections,
)

# tasks × scenarios → a difference worth finding there
SHAPES = {
    (1, 25): 0.34,
    (1, 200): 0.12,
    (4, 50): 0.12,
    (16, 25): 0.085,
    (49, 2): 0.17,
    (49, 4): 0.13,
}
# Those whose tasks can be split.
LARGE = {shape: difference for shape, difference in SHAPES.items() if shape != (49, 2)}
COLUMNS = (
    "path | tasks × scenarios, rate, correlation | seeds, spread | tables | rejected | level % | "
    "bound % | difference | power % | plain %"
)
# Of a normal variable to lie two standard deviations above its mean.
FALSE_ALARM = 0.0228


@dataclass(frozen=True, kw_only=True)
class Cell:
    """bound: on the level. difference: that the power is for. finds: the way whose power that is,
    where it is not the one whose level is measured."""

    name: str
    way: Way
    finds: Way | None = None
    setting: Setting
    difference: float
    bound: float = ALPHA

    @property
    def key(self) -> str:
        of = self.setting
        shape = f"{of.tasks}×{of.scenarios}, {of.rate}, {of.correlation}"
        return f"{self.name} | {shape} | {of.seeds}, {of.spread}"


@dataclass(frozen=True)
class Row:
    """What is known of a cell: of `tables` equal ones so many were rejected; power and plain in
    percent."""

    key: str
    tables: int
    rejected: int
    level: str
    bound: float
    difference: float
    power: float
    plain: float

    @property
    def line(self) -> str:
        return f"| {' | '.join(map(str, astuple(self)))} |"

    @property
    def over(self) -> bool:
        """The level is more than two standard errors above its bound."""
        bound = self.bound / 100
        return self.rejected / self.tables > bound + 2 * sqrt(bound * (1 - bound) / self.tables)

    @property
    def lost(self) -> bool:
        """Power is more than two standard errors below that of the plain way, where that finds the
        difference more often than not (six pairs must be discordant before any test can)."""
        shares = (self.power / 100, self.plain / 100)
        if shares[1] < 0.5:
            return False
        error = sqrt(sum(share * (1 - share) for share in shares) / few(self.tables))
        return shares[0] < shares[1] - 2 * error


def few(tables: int) -> int:
    return max(200, tables // 10)


def cells() -> list[Cell]:
    return [*_paired(), *_other_layouts(), *_walks(), *_recipes(), *_factors()]


def _exact(
    name: str, way: Way, shapes: dict[tuple[int, int], float], rates: Iterable[float], **setting
) -> Iterator[Cell]:
    for ((tasks, scenarios), difference), rate in product(shapes.items(), rates):
        yield Cell(
            name=name,
            way=way,
            setting=Setting(tasks=tasks, scenarios=scenarios, rate=rate, **setting),
            difference=min(difference, 0.97 - rate),
        )


def _paired() -> Iterator[Cell]:
    for correlation in (0.0, 0.5, 0.9):
        yield from _exact("pairs", by_blocks, SHAPES, (0.5,), correlation=correlation)
    yield from _exact("pairs", by_blocks, SHAPES, (0.9,))


def _other_layouts() -> Iterator[Cell]:
    yield from _exact("partly shared", by_blocks, LARGE, (0.5, 0.9), played="partly")
    yield from _exact("unbalanced", by_blocks, LARGE, (0.5, 0.9), played="unbalanced")
    yield from _exact("crashes 15 %, 5 %", by_blocks, LARGE, (0.5,), played="crashes")
    yield from _exact("unshared, by task", by_strata, SHAPES, (0.5, 0.9), correlation=0.0)


def _walks() -> Iterator[Cell]:
    for spending in ("linear", "obrien-fleming", "pocock"):
        way = partial(by_walk, spending=spending)
        yield from _exact(f"walk {spending}", way, LARGE, (0.5,))
        crashes = {(4, 50): SHAPES[4, 50]}
        yield from _exact(f"walk {spending}, crashes", way, crashes, (0.5,), played="crashes")


def _recipes() -> Iterator[Cell]:
    shapes = ((1, 200), (4, 50), (49, 2), (49, 4))
    for (seeds, bound), spread, (tasks, scenarios) in product(HIGHEST.items(), (0.0, 0.4), shapes):
        setting = Setting(tasks=tasks, scenarios=scenarios, seeds=seeds, spread=spread)
        yield Cell(name="recipes", way=by_recipes, setting=setting, bound=bound, difference=0.15)
    for comparisons in (1, 3, 6):
        setting = Setting(tasks=4, scenarios=25, seeds=3, spread=0.3, arms=comparisons + 1)
        name = f"recipes, family of {comparisons}"
        yield Cell(name=name, way=by_recipes, setting=setting, difference=0.2)


def _factors() -> Iterator[Cell]:
    """Grids of two settings, and values in an order; each family has all its contrasts. The power
    is that of one of them, an effect of the first setting or a straight rise."""
    for seeds, spread in product((1, 2, 3, 5), (0.0, 0.4)):
        if seeds == 1 and spread:
            continue  # of one run each nothing is said about the recipes
        common = {"tasks": 4, "scenarios": 25, "seeds": seeds, "spread": spread}
        bound = HIGHEST.get(seeds, ALPHA)
        grid = Setting(**common, arms=4, pattern=(0, 1, 0, 1))
        every = partial(by_contrasts, settings=FOUR)
        of_a = partial(by_contrasts, settings=FOUR, texts=(A,))
        of_both = partial(by_contrasts, settings=FOUR, texts=(BOTH,))
        yield Cell(name="2 × 2", way=every, finds=of_a, setting=grid, difference=0.2, bound=bound)
        beside_b = replace(grid, rate=0.4, always=(0, 0, 0.2, 0.2), pattern=(0, 0, 0, 1))
        yield Cell(
            name="2 × 2, the second setting adds .2",
            way=partial(by_contrasts, settings=FOUR, texts=(A, BOTH)),
            finds=of_both,
            setting=beside_b,
            difference=0.35,
            bound=bound,
        )
        for arms in (3, 5):
            rise = tuple(at / (arms - 1) for at in range(arms))
            yield Cell(
                name=f"trend of {arms} values",
                way=partial(by_contrasts, settings=ordered(arms)),
                setting=Setting(**common, arms=arms, pattern=rise),
                difference=0.2,
                bound=bound,
            )


def measure(cell: Cell, tables: int) -> Row:
    rejected = rejections(cell.way, cell.setting, tables, hash64(cell.key))
    shifted = replace(cell.setting, difference=cell.difference)
    found, plain = beside_plain(
        cell.finds or cell.way, shifted, few(tables), hash64(cell.key + ", different")
    )
    error = 100 * sqrt(cell.bound * (1 - cell.bound) / tables)
    return Row(
        key=cell.key,
        tables=tables,
        rejected=rejected,
        level=f"{100 * rejected / tables:.2f} ± {error:.2f}",
        bound=round(100 * cell.bound, 1),
        difference=round(cell.difference, 3),
        power=round(100 * found / few(tables), 1),
        plain=round(100 * plain / few(tables), 1),
    )


def kept(out: Path | None) -> dict[tuple[str, int], Row]:
    """The rows of an earlier run, by key and tables; a line that is no row is passed over."""
    found = {}
    for line in out.read_text().splitlines() if out and out.exists() else ():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if line.endswith("|") and len(parts) == 10 and parts[3].isdigit():
            key, tables = " | ".join(parts[:3]), int(parts[3])
            numbers = map(float, parts[6:])
            found[key, tables] = Row(key, tables, int(parts[4]), parts[5], *numbers)
    return found


def report(rows: list[Row]) -> int:
    over = [row for row in rows if row.over]
    alike = [row for row in rows if row.key.startswith("pairs") and ", 0.0 |" not in row.key]
    lost = [row for row in alike if row.lost]
    chance = FALSE_ALARM * len(rows)
    print(
        f"{len(rows)} cells, {len(over)} more than two standard errors above their bound (if every "
        f"level were exactly at its bound, {chance:.1f} would be by chance); pairing finds less "
        f"than pooled counts in {len(lost)} of {len(alike)} cells with outcomes that are alike"
    )
    for row in over + lost:
        print(row.line)
    return 1 if over or lost else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="cells whose path begins so")
    parser.add_argument("--out", type=Path, help="Markdown file to keep the rows in")
    options = parser.parse_args()
    known = kept(options.out)
    asked = [cell for cell in cells() if cell.name.startswith(options.only)]
    rows = [row for cell in asked if (row := known.get((cell.key, options.tables)))]
    todo = [cell for cell in asked if (cell.key, options.tables) not in known]
    head = f"| {COLUMNS} |\n|{'---|' * 10}\n"
    if options.out and not options.out.exists():
        options.out.write_text(head)
    print(head + "\n".join(row.line for row in rows))
    with ProcessPoolExecutor(options.processes) as pool:
        for done in as_completed([pool.submit(measure, cell, options.tables) for cell in todo]):
            row = done.result()
            rows.append(row)
            print(row.line, flush=True)
            if options.out:
                with options.out.open("a") as stream:
                    stream.write(row.line + "\n")
    return report(rows)


if __name__ == "__main__":
    sys.exit(main())
