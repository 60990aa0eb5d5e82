"""Values per second of dataset statistics, against the package tdigest's own update path.

    python benchmarks/statistics_speed.py [--windows 30000]

One process, one thread; both see the same [N, T=16, C=20] windows (the package a slice of them).
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import time

import numpy as np
from rows import Row, add_rows_argument, write_rows
from tdigest import TDigest

from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.data.statistics.dataset import DatasetStatistics, merge_statistics


def ours(values: np.ndarray, valid: np.ndarray, per_episode: int = 100) -> tuple[float, float]:
    """Values per second of wall time and of CPU time, episode by episode as conversion feeds them,
    summary included."""
    started, spent = time.perf_counter(), time.process_time()
    compute_statistics(
        (str(at), {"x": values[at : at + per_episode]}, valid[at : at + per_episode])
        for at in range(0, len(values), per_episode)
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
    (wall, cpu), slow = ours(values, valid), package(values)
    print(
        json.dumps(
            {
                "values": values.size,
                "foundry_values_per_second": round(wall),
                "foundry_values_per_cpu_second": round(cpu),
                "tdigest_values_per_cpu_second": round(slow),
                "ratio": round(cpu / slow, 1),
                "merge_100_parts_seconds": round(merging(), 2),
            },
            indent=2,
        )
    )
    row = Row(
        what="statistics of [16, 20] windows",
        unit="values per CPU s",
        ours=cpu,
        beside="tdigest's batch_update",
        theirs=slow,
        more=True,
    )
    write_rows(options.rows, [row])


if __name__ == "__main__":
    main()
