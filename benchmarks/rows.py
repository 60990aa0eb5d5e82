"""One form for what the benchmarks measure: rows, which `make bench` joins into one table."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure, and that of an alternative in the same run. more: whether more is better."""

    what: str
    unit: str
    ours: float
    beside: str = ""
    theirs: float | None = None
    more: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times as good ours is; None without an alternative."""
        if self.theirs is None:
            return None
        return self.ours / self.theirs if self.more else self.theirs / self.ours


def add_rows_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=Path, metavar="FILE", help="the figures as JSON, too")


def write_rows(path: Path | None, rows: Sequence[Row]) -> None:
    """Nothing without a path."""
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def read_rows(path: Path) -> list[Row]:
    return [Row(**one) for one in json.loads(path.read_text())]
