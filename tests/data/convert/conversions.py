"""Conversions that other processes run, and are killed in; see test_units.py."""

import sys
from pathlib import Path

from flows.reports.datasets import convert
from tests.data.convert.test_robot import FIELDS

OPTIONS = {
    "demonstrations": {
        "episodes_per_shard": 1,
        "window": {"past": 0, "future": 3},
        "cameras": ["scene"],
        "fields": list(FIELDS),
    },
    "jsonl": {"context": 15, "samples_per_shard": 8, "split.fraction": 0.2},
    "img2dataset": {"samples_per_shard": 3, "image.size": [8, 8]},
}


def main(format_: str, source: str, out: str, cpus: str) -> None:
    """Prints each step of the progress."""
    tokenizer = Path(source).parent / "tokenizer"
    convert(
        format_,
        source,
        out,
        list(OPTIONS[format_].items()),
        tokenizer=tokenizer if format_ == "jsonl" else None,
        cpus=int(cpus),
        progress=lambda *step, **_: print(*step, flush=True),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
