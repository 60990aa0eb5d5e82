"""What grows with the size of a project, simulated, and where it bends.

    python benchmarks/scale [--only order events ...] [--largest 1.0] [--into FILE]

Every size of every part is measured in a process of its own. --into: what was measured is kept in
this file, a line each, and not measured again: a run that was stopped goes on. --largest: the share
of the full sizes, for a quick look. At full size the longest is `order` with six minutes of CPU.
Prints a table of each part, with the exponent of each column between its last two sizes (1: linear,
2: quadratic; 0: it does not grow).

order: samples of 128 ranks over 10^6 steps of 1,024: each exactly once.
index: shards of a dataset, as every rank opens it.
checkpoint: the document that commits a checkpoint, over ranks, of the 1.86B model's tensors.
manifest: files of one artifact in a store on a disk.
sources: files of a raw source, as each plan looks at it.
plan: stages of a pipeline, all of them never built.
events: events of the lineage.
bucket: objects in a store on S3 (a stand-in on this machine: requests count, not seconds).

docs/scaling.md says what these come to for 10^6 episodes, 10^12 tokens and 128 GPUs.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The repository, and the benchmark whose events these are; this folder is there already.
sys.path[:0] = [os.fspath(HERE.parents[1]), os.fspath(HERE.parent)]

from measured import Clock, Part, Row, exponents, rounded  # noqa: E402

# Part → module and what it names there.
PARTS = {
    "order": "order.PART",
    "index": "shards.PART",
    "checkpoint": "checkpoints.PART",
    "manifest": "files.ARTIFACT",
    "sources": "files.SOURCE",
    "plan": "plans.PART",
    "events": "events.PART",
    "bucket": "buckets.PART",
}
SMALL_PARTS = ("checkpoint",)  # whose sizes are no share of anything


def part_of(name: str) -> Part:
    module, _, attribute = PARTS[name].partition(".")
    found: Part = getattr(importlib.import_module(module), attribute)
    return found


def measured_here(name: str, size: int) -> Row:
    """In this process, with a home of its own."""
    with tempfile.TemporaryDirectory(prefix="foundry-scale-") as folder:
        os.environ["FOUNDRY_HOME"] = f"{folder}/home"
        os.environ.pop("FOUNDRY_STORE", None)
        for made in ("home", "work"):
            (Path(folder) / made).mkdir()
        clock = Clock()
        row = part_of(name).measure(Path(folder) / "work", size)
        return rounded(row | {"CPU s in all": clock.cpu, "s in all": clock.wall})


def measured(name: str, size: int) -> Row:
    """In a process of its own."""
    command = [sys.executable, os.fspath(HERE), "--here", name, str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def kept(file: Path | None) -> dict[tuple[str, int], Row]:
    """What earlier runs measured."""
    lines = file.read_text().splitlines() if file and file.exists() else []
    return {(one["part"], one["size"]): one["row"] for one in map(json.loads, lines)}


def table(name: str, share: float, file: Path | None) -> list[Row]:
    sizes = part_of(name).sizes
    if name not in SMALL_PARTS:
        sizes = [max(1, round(size * share)) for size in sizes]
    known, rows = kept(file), []
    for size in sizes:
        row = known.get((name, size)) or measured(name, size)
        if file and (name, size) not in known:
            with file.open("a") as stream:
                stream.write(json.dumps({"part": name, "size": size, "row": row}) + "\n")
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--largest", type=float, default=1.0)
    parser.add_argument("--into", type=Path, metavar="FILE", help="keeps what was measured")
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(json.dumps(measured_here(given.here[0], int(given.here[1]))))
        return
    for name in given.only:
        rows = table(name, given.largest, given.into)
        found = {"part": name, "rows": rows, "grows with the power": exponents(rows)}
        print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
