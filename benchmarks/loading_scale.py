"""The loader at ten thousand shards: rates, memory and time to the first batch, by shard count.

    python benchmarks/loading_scale.py [--shards 10 100 1200 10000] [--rounds 3] [--seconds 3]
        [--turns 30] [--only text] [--readers foundry webdataset energon litdata] [--folder /tmp]
        [--rows FILE]

The same rows (text: 2,049 tokens of two bytes; robot: windows of small episodes, 2 cameras of
64 x 64, so that decoding hides little) lie in more and more shards. Readers take turns, each time
in a process of its own:

foundry: random access over all samples; digests are checked. The first epoch, in which every shard
    is hashed, is timed apart from what follows.
webdataset: shards and a buffer of 1,000 samples are shuffled. Of robot data it decodes an episode
    as it comes, all pictures once, and cuts all its windows; our own transforms of the numbers.
energon: megatron-energon, prepared (its own indices), slices of 100 samples and such a buffer.
litdata: its own format, as many chunks as there are shards, shuffled.

The last two are optional packages (`pip install megatron-energon litdata`, here or where the Python
FOUNDRY_BENCH_READERS looks, which has ours, too) and read text alone: they give samples as they are
stored, and have nothing that cuts windows out of episodes.
Memory is what the process has more than after its imports: resident, proportional, and anonymous
(caches of the kernel left out); with --workers, of the largest of the forked workers. One process
reads, so that rates are per second of its CPU time.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, os.fspath(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from loading_readers import (
    BATCH,
    CAMERAS,
    EPISODES,
    LENGTH,
    PREPARED,
    READERS,
    ROW,
    ROWS,
    SEED,
)
from rows import Row, add_rows_argument, write_rows


def write_text(folder: Path, shards: int) -> None:
    """ROWS rows, evenly."""
    from foundry_core.data.shards.write import ShardFolderWriter

    rng = np.random.default_rng(SEED)
    pool = [_npy(rng.integers(1, 250, ROW).astype(np.uint16)) for _ in range(64)]
    writer = ShardFolderWriter(folder, ROWS // shards)
    for row in range(ROWS // shards * shards):
        writer.add(f"t{row:08d}", {"tokens.npy": pool[row % 64]})
    writer.close()
    info = {"context": ROW - 1, "eos_id": 0, "vocab_size": 258}
    (folder / "dataset.json").write_text(json.dumps(info))


def write_robot(folder: Path, shards: int, episodes: int = EPISODES) -> None:
    """Whole episodes, evenly."""
    from benchmarks.loading_speed import WINDOW, _fields, _npz, _scene
    from foundry_core.data.images import encode_jpeg
    from foundry_core.data.shards.write import ShardFolderWriter

    rng = np.random.default_rng(SEED)
    jpegs = [encode_jpeg(_scene(rng, 64), 85) for _ in range(64)]
    lowdims = [_npz(_fields(rng, LENGTH)) for _ in range(32)]
    metadata = json.dumps({"length": LENGTH}).encode()
    writer = ShardFolderWriter(folder, episodes // shards)
    for episode in range(episodes // shards * shards):
        members = {
            f"{camera}_{t:06d}.jpg": jpegs[(episode * 7 + t) % 64]
            for camera in CAMERAS
            for t in range(LENGTH)
        }
        members["lowdim.npz"] = lowdims[episode % 32]
        members["metadata.json"] = metadata
        members["language_instructions.json"] = b'{"original": ["open the drawer"]}'
        writer.add(f"e{episode:08d}", members)
    writer.close()
    info = {"layout": "episode", "cameras": {c: {} for c in CAMERAS}}
    info |= {"window": WINDOW.model_dump(), "lengths": [LENGTH] * (episodes // shards * shards)}
    (folder / "dataset.json").write_text(json.dumps(info))


def _npy(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def memory(process: int | str = "self") -> dict[str, float]:
    """MiB of a process."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:] if "kB" in line}
    return {name: found[name] / 1024 for name in ("Rss", "Pss", "Anonymous")}


def child(reader: str, kind: str, folder: Path, options: argparse.Namespace) -> dict:
    """Measures one reader in this process."""
    torch.set_num_threads(1)
    make = READERS[reader]
    _imported(reader)
    before, started = memory(), time.perf_counter()
    batches = make(folder, kind, options)
    next(batches)
    first = time.perf_counter() - started
    epoch = options.epoch if reader == "foundry" else 4 * BATCH
    found = {"first_batch_s": first, "epoch_per_cpu_s": _rate(batches, rows=epoch)}
    found["per_cpu_s"] = _rate(batches, seconds=options.seconds)
    after = memory()
    found |= {f"{name.lower()}_mib": after[name] - before[name] for name in after}
    if options.workers:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        parts = [memory(process) for process in children]
        for name in after:
            found[f"worker_{name.lower()}_mib"] = max(part[name] for part in parts) - before[name]
    return found


def turns(reader: str, kind: str, folders: list[Path], options: argparse.Namespace) -> dict:
    """Rates of one reader on several folders in one process, which take turns of a fifth of a
    second: a machine that others load is the same for all of them. {folder's name: rate}"""
    torch.set_num_threads(1)
    make = READERS[reader]
    _imported(reader)
    readers = {folder.name: make(folder, kind, options) for folder in folders}
    for batches in readers.values():
        _rate(batches, rows=options.epoch if reader == "foundry" else 4 * BATCH)
    rows, cpu = dict.fromkeys(readers, 0), dict.fromkeys(readers, 0.0)
    for _ in range(options.turns):
        for name, batches in readers.items():
            begun = time.process_time()
            while time.process_time() - begun < 0.2:
                rows[name] += next(batches)
            cpu[name] += time.process_time() - begun
    return {name: rows[name] / cpu[name] for name in readers}


def _rate(batches: Iterator[int], *, rows: int = 0, seconds: float = 0.0) -> float:
    """Samples per second of CPU time, over so many or so long."""
    cpu, wall, done = time.process_time(), time.perf_counter(), 0
    while done < rows or time.perf_counter() - wall < seconds:
        done += next(batches)
    return done / (time.process_time() - cpu)


def _imported(reader: str) -> None:
    import benchmarks.loading_speed  # noqa: F401
    import foundry_core.data.loading.build
    import foundry_core.data.text.tokenizer  # noqa: F401

    if reader == "webdataset":
        import webdataset  # noqa: F401
    if reader == "energon":
        import megatron.energon  # noqa: F401
    if reader == "litdata":
        import litdata  # noqa: F401


def prepare(folder: Path, kind: str, shards: int, readers: list[str]) -> None:
    from benchmarks.loading_speed import IMAGE, OBS
    from foundry_core.data.text.tokenizer import Tokenizer

    write = write_text if kind == "text" else write_robot
    write(folder, shards)
    tokenizer = Tokenizer.train(["x"], 258)
    for token in (IMAGE, OBS):
        tokenizer.add_special(token)
    tokenizer.save(folder / "tokenizer")
    if kind == "robot":
        from foundry_core.data.inspection.recompute import dataset_statistics
        from foundry_core.data.robot.normalize import Normalizer
        from foundry_core.data.robot.transform_config import RobotInputs

        with tempfile.TemporaryDirectory() as few:
            write_robot(Path(few), 1, 32)
            statistics = dataset_statistics(Path(few))
        fields = RobotInputs(cameras=CAMERAS, horizon=15).fields
        normalizer = Normalizer.from_statistics(statistics, fields)
        normalizer.save(folder / "normalizer.json")
    for reader in readers:
        if reader in PREPARED:
            spawned(["--prepare", reader, str(folder), str(shards)], str(folder))


def measure(kind: str, options: argparse.Namespace) -> list[Row]:
    """Prints a line for each number of shards and reader: medians over the rounds, in which they
    take turns, so that all of them see the same machine. Ours beside each other one's."""
    both = ("foundry", "webdataset")
    readers = [one for one in options.readers if kind == "text" or one in both]
    found: dict[tuple[int, str], list[dict]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        for shards in options.shards:
            prepare(Path(root, str(shards)), kind, shards, readers)
        for _ in range(options.rounds):
            for shards, reader in itertools.product(options.shards, readers):
                if (row := run(reader, kind, Path(root, str(shards)), options)) is not None:
                    found.setdefault((shards, reader), []).append(row)
        if options.turns:
            for reader in readers:
                folders = [Path(root, str(shards)) for shards in options.shards]
                what = ["--turn", reader, kind, *map(str, folders), *timing(kind, options)]
                rates = spawned(what, root)
                first = rates and rates[folders[0].name]
                cells = (
                    f"{n} {r:,.0f} ({100 * r / first:.0f} %)" for n, r in (rates or {}).items()
                )
                print(f"{kind:5} in turns, per CPU s  {reader:10}  {'  '.join(cells)}", flush=True)
    medians = {
        key: {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
        for key, rows in sorted(found.items(), key=lambda one: one[0][::-1])
    }
    for (shards, reader), values in medians.items():
        cells = "  ".join(f"{name} {value:,.2f}" for name, value in values.items())
        print(f"{kind:5} {shards:6} shards  {reader:10}  {cells}", flush=True)
    return [
        Row(
            what=f"loading: {kind}, {shards} shards",
            unit="samples per CPU s",
            ours=medians[shards, "foundry"]["per_cpu_s"],
            beside={"energon": "megatron-energon"}.get(reader, reader),
            theirs=values["per_cpu_s"],
            more=True,
        )
        for (shards, reader), values in medians.items()
        if reader != "foundry" and (shards, "foundry") in medians
    ]


def run(reader: str, kind: str, folder: Path, options: argparse.Namespace) -> dict | None:
    """One reader in a process of its own."""
    what = ["--child", reader, kind, str(folder), *timing(kind, options)]
    return spawned(what, str(folder.parent))


def timing(kind: str, options: argparse.Namespace) -> list[str]:
    """Of a process that measures."""
    epoch = options.epoch or (ROWS if kind == "text" else 6 * EPISODES)
    words = ["--turns", options.turns, "--seconds", options.seconds, "--epoch", epoch]
    words += ["--workers", options.workers, "--window-mib", options.window_mib]
    return list(map(str, words))


def spawned(what: list[str], root: str) -> dict | None:
    """What a process of this script prints; None where it failed, which is printed. what: first the
    option that says what to do, then the reader."""
    other = os.environ.get("FOUNDRY_BENCH_READERS") if what[1] in PREPARED else ""
    command = [other or sys.executable, __file__, *what]
    environment = os.environ | {"FOUNDRY_HOME": os.path.join(root, "home")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{' '.join(what[:3])}: {done.stderr.strip().splitlines()[-1]}")
        return None
    row: dict = json.loads(done.stdout.splitlines()[-1])
    print(f"{' '.join(what[:4])}: {row}", file=sys.stderr, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="see the module's docstring")
    parser.add_argument("--shards", type=int, nargs="+", default=[10, 100, 1200, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", choices=["text", "robot"])
    parser.add_argument("--readers", nargs="+", default=["foundry"], choices=list(READERS))
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--window-mib", type=int, default=64)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--epoch", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=0, help="also all numbers in one process")
    parser.add_argument("--turn", nargs="+", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=3, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", nargs=3, default=None, help=argparse.SUPPRESS)
    add_rows_argument(parser)
    options = parser.parse_args()
    if options.prepare:
        reader, folder, shards = options.prepare
        PREPARED[reader](Path(folder), int(shards))
        print("{}")
        return
    if options.child:
        reader, kind, folder = options.child
        print(json.dumps(child(reader, kind, Path(folder), options)))
        return
    if options.turn:
        reader, kind, *folders = options.turn
        print(json.dumps(turns(reader, kind, list(map(Path, folders)), options)))
        return
    rows: list[Row] = []
    for kind in [options.only] if options.only else ["text", "robot"]:
        rows += measure(kind, options)
    write_rows(options.rows, rows)


if __name__ == "__main__":
    main()
