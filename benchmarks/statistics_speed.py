"""Values per second of dataset statistics, against tdigest's own update path and fastdigest's.

    python benchmarks/statistics_speed.py [--windows 30000]

One thread; all see the same [N, T=16, C=20] windows (tdigest a slice of them), ours and fastdigest
episode by episode. Ours counts, sums and keeps extremes of the masked values besides; fastdigest
(Rust) only digests, in a process of its own: FOUNDRY_BENCH_PYTHON names a Python that has it.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from rows import Row, add_rows_argument, write_rows
from tdigest import TDigest

from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.data.statistics.dataset import DatasetStatistics, merge_statistics

EPISODE = 100
"""Windows of an episode."""
_FASTDIGEST = """
import sys, time
import numpy as np
from fastdigest import TDigest
values, episode = np.load(sys.argv[1], mmap_mode="r"), int(sys.argv[2])
started = time.process_time()
digests = [TDigest() for _ in range(values[0].size)]
for at in range(0, len(values), episode):
    columns = values[at : at + episode].reshape(-1, len(digests)).T
    for digest, column in zip(digests, np.ascontiguousarray(columns)):
        digest.batch_update(column)
found = [[digest.quantile(q) for q in (0.02, 0.98)] for digest in digests]
print(values.size / (time.process_time() - started))
"""


def ours(values: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """Values per second of wall time and of CPU time, episode by episode as conversion feeds them,
    summary included."""
    started, spent = time.perf_counter(), time.process_time()
    compute_statistics(
        (str(at), {"x": values[at : at + EPISODE]}, valid[at : at + EPISODE])
        for at in range(0, len(values), EPISODE)
    )
    wall, cpu = time.perf_counter() - started, time.process_time() - spent
    return values.size / wall, values.size / cpu


def package(values: np.ndarray, seconds: float = 4.0) -> float:
    """Values per CPU second of TDigest.batch_update, one digest per step and dimension."""
    steps, dims = values.shape[1:]
    started, done = time.process_time(), 0
    for step in range(steps):
        for dim in range(dims):
            digest = TDigest()
            digest.batch_update(values[:1000, step, dim].tolist())
            done += 1000
            if time.process_time() - started > seconds:
                return done / (time.process_time() - started)
    return done / (time.process_time() - started)


def fastdigest(values: np.ndarray) -> float | None:
    """Values per CPU second of its batch_update and two quantiles; None where no Python has it."""
    python = os.environ.get("FOUNDRY_BENCH_PYTHON")
    if not python:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "values.npy")
        np.save(file, values)
        command = [python, "-c", _FASTDIGEST, str(file), str(EPISODE)]
        done = subprocess.run(command, capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else None


def merging(parts: int = 100) -> float:
    """Seconds to merge `parts` datasets of [16, 20] fields."""
    rng = np.random.default_rng(0)
    mask = np.ones((600, 16), bool)
    made: list[DatasetStatistics] = [
        compute_statistics([("e", {"x": rng.normal(size=(600, 16, 20))}, mask)])
        for _ in range(parts)
    ]
    started = time.perf_counter()
    merge_statistics(made)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=30_000)
    add_rows_argument(parser)
    options = parser.parse_args()
    windows = options.windows
    values = np.random.default_rng(0).normal(size=(windows, 16, 20))
    valid = np.ones((windows, 16), bool)
    (wall, cpu), slow, fast = ours(values, valid), package(values), fastdigest(values)
    print(
        json.dumps(
            {
                "values": values.size,
                "foundry_values_per_second": round(wall),
                "foundry_values_per_cpu_second": round(cpu),
                "tdigest_values_per_cpu_second": round(slow),
                "ratio": round(cpu / slow, 1),
                "fastdigest_values_per_cpu_second": None if fast is None else round(fast),
                "merge_100_parts_seconds": round(merging(), 2),
            },
            indent=2,
        )
    )
    others = (("tdigest's batch_update", slow), ("fastdigest, digests alone", fast))
    rows = [
        Row(
            what="statistics of [16, 20] windows",
            unit="values per CPU s",
            ours=cpu,
            beside=beside,
            theirs=theirs,
            more=True,
        )
        for beside, theirs in others
        if theirs is not None
    ]
    write_rows(options.rows, rows)


if __name__ == "__main__":
    main()
