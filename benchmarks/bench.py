"""Everything that this project times, in one table: `make bench`, half an hour on two quiet cores.

    python benchmarks/bench.py [--only plan serving] [--out benchmarks/results]

Each script runs in its short form; its own page says what it compares and how, and its long form is
what benchmarks/results.md quotes. A ratio is of one run, in which both take turns: above 1, ours is
the better. The result is a JSON file and a Markdown table, named by the commit, with the machine
and the versions. Exit code 1 where a script failed; the others are in the table.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rows import Row, read_rows

HERE = Path(__file__).parent
# The short form of each script.
SHORT = {
    "plan": "--rounds 5",
    "orchestration": "--stages 6 --rounds 2",
    "lineage": "--artifacts 20000",
    "conversion": "--speed",
    "statistics_speed": "--windows 10000",
    "loading_speed": "--seconds 2 --workers 0 --episodes 6",
    "loading_scale": "--only text --shards 100 --rounds 3 --seconds 2"
    " --readers foundry energon litdata",
    "training_step": "--shape demo --rounds 8",
    "cross_entropy": "--rounds 3",
    "decoding": "--preset demo_llm --batch 1 8",
    "saving": "--million 30",
    "serving": "--steps 100",
}
NAMED = ("torch", "prefect", "ray", "webdataset", "transformers", "duckdb", "tdigest", "numpy")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(SHORT), choices=list(SHORT))
    parser.add_argument("--out", type=Path, default=HERE / "results", help="a folder")
    options = parser.parse_args()
    found, failed = {}, []
    for name in options.only:
        began = time.perf_counter()
        rows = measured(name)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        if rows is None:
            failed.append(name)
        found[name] = rows or []
    facts = machine()
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"{facts['commit']}"
    document = {**facts, "rows": {n: [asdict(row) for row in rows] for n, rows in found.items()}}
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    stem.with_suffix(".md").write_text(table(facts, found, failed))
    print(f"{stem}.md")
    return 1 if failed else 0


def measured(name: str) -> list[Row] | None:
    """What the script wrote, None where it failed; its output is this process's."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.json")
        command = [sys.executable, str(HERE / f"{name}.py"), *shlex.split(SHORT[name])]
        done = subprocess.run([*command, "--rows", str(file)], cwd=HERE.parent, env=environment())
        return read_rows(file) if done.returncode == 0 else None


def environment() -> dict[str, str]:
    """One thread: what is told are CPU seconds."""
    paths = filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH", "")))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def machine() -> dict[str, str]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{os.cpu_count()} cores, {cpu}, load {os.getloadavg()[0]:.1f} at the end",
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {installed(name)}" for name in NAMED),
    }


def commit() -> str:
    """With "-changed" where the tree is not what was committed."""
    git = ["git", "-C", str(HERE.parent), "describe", "--always", "--dirty=-changed"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no-checkout"


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def table(facts: dict[str, str], found: dict[str, list[Row]], failed: Sequence[str]) -> str:
    """In Markdown."""
    lines = [
        "# One run of every benchmark in its short form",
        "",
        "`make bench`. A ratio above 1: ours is the better.",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
        "| what | ours | beside | theirs | unit | ratio |",
        "|---|---:|---|---:|---|---:|",
    ]
    for rows in found.values():
        for row in rows:
            theirs = "" if row.theirs is None else f"{row.theirs:.4g}"
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            cells = (row.what, f"{row.ours:.4g}", row.beside, theirs, row.unit, ratio)
            lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\nFailed: {name}.py" for name in failed]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
