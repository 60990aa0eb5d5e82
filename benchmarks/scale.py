"""What grows with the size of a project, simulated, and where it bends.

    python benchmarks/scale.py [--only order lineage ...] [--largest 1.0] [--walk]

Each part is a process of its own and prints one JSON object: a table over growing sizes, and the
exponent of each column between the last two (1: linear, 2: quadratic; 0: it does not grow).
--largest: the share of the full sizes, for a quick look. The whole is meant for ten minutes on two
quiet cores.

order: samples of 128 ranks over 10^6 steps of 1,024: each exactly once. Of 10^5 steps all draws are
    made and marked; of 10^6 two million samples are traced back to the position that draws them
    (--walk: all 1.024 * 10^9 draws are made, five minutes of CPU more); and for steps from all of
    the run, what 128 ranks and 64 draw by themselves is the step's batch.
index: shards of a dataset, as every rank opens it.
checkpoint: the document that commits a checkpoint, over ranks, of the 1.86B model's tensors.
manifest: files of one artifact in a store on a disk.
sources: files of a raw source, as each plan looks at it.
plan: stages of a pipeline, all of them never built.
lineage: events.
bucket: objects in a store on S3 (a stand-in on this machine: requests count, not seconds).

docs/scaling.md says what these come to for 10^6 episodes, 10^12 tokens and 128 GPUs.
"""

import argparse
import json
import math
import mmap
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

RANKS, BATCH, STEPS, SEED = 128, 1_024, 1_000_000, 0
# A billion draws are five minutes of CPU; set by --walk.
WALKED, WALK_ALL = 100_000, bool(os.environ.get("SCALE_WALK_ALL"))
Row = dict[str, float]


class Clock:
    """CPU and wall seconds since it was made: beside other work the first say more."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def cpu(self) -> float:
        return time.process_time() - self._cpu

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._wall


def resident() -> float:
    """MiB that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def sizes(largest: int, share: float, count: int = 3, apart: float = 10**0.5) -> list[int]:
    """`count` sizes, each `apart` times the one before, up to a share of the largest."""
    top = max(1.0, largest * share)
    return [max(1, round(top / apart**n)) for n in reversed(range(count))]


def order(folder: Path, share: float) -> list[Row]:
    """One epoch that ends with the last step. Up to 10^5 steps every draw is made and marked: all
    samples were drawn, and by counting none twice. Beyond, samples from all of the dataset are
    traced back to the one position that draws them, by the inverse of the permutation."""
    from foundry_core.data.loading.order import Order, rank_slice

    rows = []
    for steps in sizes(STEPS, share, 2, apart=10):
        total = steps * BATCH
        # Of ten datasets in one pool, as many samples as there are draws.
        parts = {f"d{i}": total // 10 + (i < total % 10) for i in range(10)}
        whole = Order(parts, None, seed=SEED)
        walked = steps if steps <= WALKED or WALK_ALL else 0
        seconds = _walk(whole, walked) if walked else 0.0
        traced = _trace(whole, min(total, 2_000_000))
        rows.append(
            {
                "steps": steps,
                "draws": total,
                "draws walked": walked * BATCH,
                "CPU s of the walk": seconds,
                "samples traced": traced,
                "steps compared rank by rank": _check_ranks(whole, steps, rank_slice),
                "us of a rank's step": 1e6 * _rank_step(whole, steps, rank_slice),
            }
        )
    return rows


def _trace(whole: Any, count: int) -> int:
    """For `count` samples, the position that draws each: draws there must give the sample."""
    import numpy as np

    from foundry_core.data.keyed import key
    from foundry_core.data.loading.permutation import Permutation

    total = int(whole.sizes.sum())
    starts = np.concatenate([[0], np.cumsum(whole.sizes)])
    permutation = Permutation(total, key(SEED, "", 0))  # the pool's, in its first epoch
    samples = np.random.default_rng(0).integers(0, total, count, dtype=np.uint64)
    positions = _inverse(permutation, samples)
    while (outside := positions >= total).any():  # the way back along the cycle
        positions[outside] = _inverse(permutation, positions[outside])
    assert np.array_equal(permutation(positions.astype(np.int64)), samples.astype(np.int64))
    for place, sample in list(zip(positions.tolist(), samples.tolist(), strict=True))[:500]:
        draw = whole.draws(place, 1)
        assert starts[draw.dataset[0]] + draw.sample[0] == sample
    return count


def _inverse(permutation: Any, values: Any) -> Any:
    """Of the Feistel network, written here a second time: its rounds from the last to the first."""
    from foundry_core.data.keyed import mix_array

    half, mask = permutation._half, permutation._mask
    left, right = values >> half, values & mask
    for of_round in permutation._keys[::-1]:
        left, right = right ^ (mix_array(left + of_round) & mask), left
    return (left << half) | right


def _walk(whole: Any, steps: int) -> float:
    """CPU seconds of all draws, by two processes that mark what they drew."""
    import numpy as np

    total = steps * BATCH
    memory = mmap.mmap(-1, total)
    seen = np.frombuffer(memory, dtype=bool)
    starts = np.concatenate([[0], np.cumsum(whole.sizes)])

    def mark(begin: int, end: int) -> None:
        for first in range(begin, end, 64):
            draws = whole.draws(first * BATCH, min(64, end - first) * BATCH)
            seen[starts[draws.dataset] + draws.sample] = True

    before = os.times()
    context = multiprocessing.get_context("fork")
    halves = ((0, steps // 2), (steps // 2, steps))
    walkers = [context.Process(target=mark, args=half) for half in halves]
    for walker in walkers:
        walker.start()
    for walker in walkers:
        walker.join()
    assert not any(walker.exitcode for walker in walkers)
    assert seen.all(), f"{total - int(seen.sum())} of {total} samples were never drawn"
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def _check_ranks(whole: Any, steps: int, rank_slice: Callable[..., slice]) -> int:
    """What 128 ranks draw, and 64 after a restart with half of them, is the step's batch."""
    import numpy as np

    drawn = random.Random(0)
    chosen = sorted({0, steps - 1, *(drawn.randrange(steps) for _ in range(48))})
    for step in chosen:
        batch = whole.draws(step * BATCH, BATCH)
        for world in (RANKS, RANKS // 2):
            parts = [rank_slice(BATCH, rank, world) for rank in range(world)]
            mine = [whole.draws(step * BATCH + p.start, p.stop - p.start) for p in parts]
            for column in ("dataset", "sample", "epoch"):
                got = np.concatenate([getattr(one, column) for one in mine])
                assert np.array_equal(got, getattr(batch, column)), (step, world, column)
    return len(chosen)


def _rank_step(whole: Any, steps: int, rank_slice: Callable[..., slice]) -> float:
    """Seconds of CPU in which the last rank names its samples of one step, near the end."""
    part = rank_slice(BATCH, RANKS - 1, RANKS)
    clock = Clock()
    for step in range(max(0, steps - 1_000), steps):
        whole.draws(step * BATCH + part.start, part.stop - part.start)
    return clock.cpu / min(steps, 1_000)


def index(folder: Path, share: float) -> list[Row]:
    """Shards of ten episodes with twelve members each. Tars are not written: opening a dataset
    reads its manifest and its index."""
    import numpy as np

    from foundry_core.data.shards.index import build_index
    from foundry_core.data.shards.packed import DATASET_INDEX, Packed, write_index
    from foundry_core.data.shards.read import ShardSet
    from foundry_core.data.shards.write import DATASET_MANIFEST, shard_name

    names = [f"e{e:08d}.camera_{m:06d}.jpg" for e in range(10) for m in range(12)]
    members = [(name, 512 + 1_024 * n, 512) for n, name in enumerate(names)]
    one = Packed.of(build_index(members, 1_024 * len(members) + 1_024))
    rows = []
    for shards in sizes(100_000, share):
        place = folder / str(shards)
        place.mkdir()
        line = {"num_sequences": 10, "bytes": one.tar_bytes, "sha256": "a" * 64}
        line["index"] = one.digest.hex()
        with (place / DATASET_MANIFEST).open("w") as stream:
            for n in range(shards):
                stream.write(json.dumps({"shard": shard_name(n), **line}) + "\n")
        write_index(place / DATASET_INDEX, (one for _ in range(shards)), shards)
        before, clock = resident(), Clock()
        opened = ShardSet(place)
        count = len(opened)
        opened.key(0)
        seconds, memory = clock.cpu, resident() - before
        assert count == 10 * shards
        draw, clock = np.random.default_rng(0), Clock()
        for sample in draw.integers(0, count, 2_000).tolist():
            opened.key(sample)
        rows.append(
            {
                "shards": shards,
                "manifest MB": (place / DATASET_MANIFEST).stat().st_size / 1e6,
                "index MB": (place / DATASET_INDEX).stat().st_size / 1e6,
                "CPU s to open": seconds,
                "MiB of a process": memory,
                "us of a look-up": 1e6 * clock.cpu / 2_000,
                "MiB after 2,000": resident() - before,
            }
        )
        del opened
    return rows


def checkpoint(folder: Path, share: float) -> list[Row]:
    """What `state.json` comes to: which part of which tensor lies where. The tensors of the 1.86B
    model (blocks of three towers, moments and average), every matrix split among all ranks; rows of
    metrics are those of 10^6 steps, one in 20."""
    import torch

    from foundry_core.models.tensor_files import Written
    from foundry_core.training.checkpoint import read_state, state_bytes, state_document
    from foundry_core.training.layout import Chunk, StoredTensor, layout_document

    shapes = [(2_048, 2_048)] * 7 * 24 + [(1_152, 1_152)] * 6 * 27 + [(1_024, 1_024)] * 8 * 24
    rows = []
    for ranks in (1, 8, 32, RANKS):
        layout = {}
        for part in ("model", "exp_avg", "exp_avg_sq", "ema"):
            for number, (high, wide) in enumerate(shapes):
                cut = -(-high // ranks)
                chunks = tuple(
                    Chunk(rank=r, offsets=(r * cut, 0), sizes=(min(cut, high - r * cut), wide))
                    for r in range(ranks)
                    if r * cut < high
                )
                layout[f"{part}/blocks.{number}.weight"] = StoredTensor(
                    dtype=torch.float32, shape=(high, wide), chunks=chunks
                )
        shards = [Written(sha256="a" * 64, size=1)] * ranks
        document = layout_document(layout)  # once in a run
        clock = Clock()
        data = state_bytes(state_document(1, document, shards, {}))
        written, clock = clock.cpu, Clock()
        read_state(json.loads(data))
        rows.append(
            {
                "ranks": ranks,
                "tensors": len(layout),
                "MB": len(data) / 1e6,
                "CPU s to write": written,
                "CPU s to read": clock.cpu,
            }
        )
    return rows


def manifest(folder: Path, share: float) -> list[Row]:
    """An artifact of many files, and what a plan pays to see that it is whole."""
    from foundry_core.files import sha256_hex
    from foundry_core.store.local import LocalStore
    from foundry_core.store.manifest import MANIFEST, File

    digest = sha256_hex("x")
    rows = []
    for count in sizes(100_000, share):
        store = LocalStore.open(str(folder / f"store{count}"))
        key = sha256_hex(str(count))
        place = store.path("convert_robot", key)
        place.mkdir(parents=True)
        files = []
        for number in range(count):
            name = f"shard_{number:06d}.tar"
            (place / name).write_text("x")
            files.append(File(path=name, size=1, sha256=digest))
        clock = Clock()
        artifact = _artifact(key, tuple(files), kind="convert_robot")
        (place / MANIFEST).write_bytes(artifact.encoded())
        made, clock = clock.cpu, Clock()
        first = store.state("convert_robot", key)
        assert first.status == "ok", first.problem
        looked = clock.cpu
        time.sleep(2.5)  # until a signature may stand for a digest
        store.verify("convert_robot", key)
        clock = Clock()
        assert store.state("convert_robot", key).status == "ok"
        rows.append(
            {
                "files": count,
                "manifest MB": (place / MANIFEST).stat().st_size / 1e6,
                "CPU s to write it": made,
                "CPU s of the first look": looked,
                "CPU s of every plan": clock.cpu,
            }
        )
    return rows


def sources(folder: Path, share: float) -> list[Row]:
    """A folder of files of 1 KB each."""
    from foundry_core.identity.sources import fingerprint

    rows = []
    for count in sizes(100_000, share):
        raw = folder / f"raw{count}"
        for number in range(count):
            if number % 1_000 == 0:
                (raw / str(number // 1_000)).mkdir(parents=True)
            (raw / str(number // 1_000) / f"{number}.bin").write_bytes(
                number.to_bytes(1_024, "big")
            )
        time.sleep(2.5)
        clock = Clock()
        digest = fingerprint(raw)
        hashed, clock = clock.cpu, Clock()
        assert fingerprint(raw) == digest
        rows.append({"files": count, "CPU s hashed": hashed, "CPU s of every plan": clock.cpu})
    return rows


def plan(folder: Path, share: float) -> list[Row]:
    """The demo's document with more and more policies and evaluations: an ablation's merged graph
    is as large."""
    import yaml

    from flows.runs.planning import Request, prepare
    from foundry_core.config.documents import CONFIG_ROOT, load_document

    rows = []
    base = load_document(CONFIG_ROOT / "pipelines" / "demo.yaml")
    for stages in [20, *sizes(600, share)]:
        document = json.loads(json.dumps(base))
        for number in range(1, max(2, (stages - len(base["stages"])) // 2 + 1)):
            document["stages"][f"vla_{number}"] = base["stages"]["vla"] | {"seed": number}
            document["stages"][f"evaluate_{number}"] = base["stages"]["evaluate"] | {
                "inputs": {"policy": f"vla_{number}"}
            }
        path = folder / f"p{stages}.yaml"
        path.write_text(yaml.safe_dump(document | {"name": "many"}, sort_keys=False))
        clock = Clock()
        found = prepare(Request(pipeline=str(path)))
        planned, clock = clock.cpu, Clock()
        prepare(Request(pipeline=str(path)))
        rows.append(
            {"stages": len(found.specs), "CPU s of the first plan": planned, "CPU s": clock.cpu}
        )
    return rows


def lineage(folder: Path, share: float) -> list[Row]:
    """Events as runs write them (benchmarks/lineage.py), 4.25 for each artifact."""
    from lineage import advances, closures, write_log

    from foundry_core.lineage.index import Index

    rows = []
    for events in sizes(1_000_000, share):
        artifacts = round(events / 4.25)
        log = write_log(folder / f"events{events}", artifacts)
        index = Index(folder / f"lineage{events}.duckdb", log)
        clock = Clock()
        index.rebuild()
        rebuilt, wall = clock.cpu, clock.wall
        clock = Clock()
        gaining, _ = advances(index, 5)
        gained = clock.cpu / 5
        asked = closures(index.path, artifacts)
        stored = sum(f.stat().st_size for f in (folder / f"events{events}").rglob("*.parquet"))
        rows.append(
            {
                "events": events,
                "artifacts": artifacts,
                "log MB": stored / 1e6,
                "index MB": index.path.stat().st_size / 1e6,
                "CPU s to rebuild": rebuilt,
                "s to rebuild": wall,
                "CPU s to take in 20 events": gained,
                "s to take in 20 events": sorted(gaining)[2],
                **{f"s of {name}": sorted(s)[len(s) // 2] for name, s in asked.items()},
            }
        )
    return rows


def bucket(folder: Path, share: float) -> list[Row]:
    """Artifacts of eight files. Requests do not depend on where the bucket is; seconds do, and the
    stand-in looks at all its objects for each listing."""
    from foundry_core.objects import Objects
    from foundry_core.store.open import open_store

    rows = []
    for objects in sizes(10_000, share):
        with _bucket() as uri:
            store = open_store(uri)
            keys = _fill(store, max(1, objects // 9))
            with _counted(Objects) as committed:
                _commit(store)
            with _counted(Objects) as planned:
                states = store.states([("convert_text", key) for key in keys[:20]])
            assert all(state.status == "ok" for state in states.values())
            clock = Clock()
            with _counted(Objects) as listed:
                assert len(store.artifacts()) == len(keys) + 1
            seconds = clock.wall
            with _counted(Objects) as swept:
                store.sweep(lambda key: False, older_than=0.0, apply=False)
            rows.append(
                {
                    "objects": 9 * len(keys),
                    "artifacts": len(keys),
                    "requests of a commit": committed[0],
                    "requests of 20 states": planned[0],
                    "requests to list": listed[0],
                    "s to list": seconds,
                    "requests to sweep": swept[0],
                }
            )
    return rows


def _artifact(key: str, files: tuple[Any, ...], **more: Any) -> Any:
    from foundry_core.store.manifest import Artifact, content_digest

    plain: dict[str, Any] = {
        "kind": "convert_text",
        "key": key,
        "content": content_digest(files),
        "input_content_key": key,
        "code": "version:1",
        "code_fingerprint": key,
        "recipe": {},
        "seed": 0,
        "sources": {},
        "inputs": (),
        "files": files,
        "metrics": {},
        "attempt": "a1",
        "run_id": "r",
        "created": "2026-01-01T00:00:00.000000Z",
        "seconds": 1.0,
    }
    return Artifact(**plain | more)


def _fill(store: Any, artifacts: int) -> list[str]:
    """Puts what commits leave, object by object; the keys."""
    from foundry_core.files import sha256_hex
    from foundry_core.store.manifest import MANIFEST, File

    keys = [sha256_hex(f"{artifacts} {n}") for n in range(artifacts)]
    files = tuple(File(path=f"file-{n}", size=1, sha256=sha256_hex("x")) for n in range(8))
    for key in keys:
        place = f"convert_text/{key}"
        for file in files:
            store.documents.write(f"{place}/files-a1-0/{file.path}", b"x")
        artifact = _artifact(key, files, files_at="files-a1-0")
        store.documents.create(f"{place}/{MANIFEST}", artifact.encoded())
    return keys


def _commit(store: Any) -> None:
    """One artifact as a run commits it."""
    from foundry_core.files import sha256_hex
    from foundry_core.store.manifest import scan

    key = sha256_hex("one more")
    attempt, out, _ = store.attempt(key)
    for number in range(8):
        (out / f"file-{number}").write_text(str(number))
    assert store.commit(_artifact(key, scan(out), attempt=attempt), out)


@contextmanager
def _counted(objects: Any) -> Iterator[list[int]]:
    """How many requests were made in the block."""
    counts = [0]
    retry = objects._retry

    def counting(self: Any, what: str, call: Callable[[], Any]) -> Any:
        counts[0] += 1
        return retry(self, what, call)

    objects._retry = counting
    try:
        yield counts
    finally:
        objects._retry = retry


@contextmanager
def _bucket() -> Iterator[str]:
    import s3fs

    from tests.s3 import CREDENTIALS, s3_server

    bucket = f"scale-{os.urandom(4).hex()}"  # the stand-in's servers of one process share theirs
    with s3_server() as endpoint:
        os.environ |= {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "FOUNDRY_S3_TIMEOUT": "30"}
        s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True).mkdir(bucket)
        yield f"s3://{bucket}/store"


PARTS: dict[str, Callable[[Path, float], list[Row]]] = {
    "order": order,
    "index": index,
    "checkpoint": checkpoint,
    "manifest": manifest,
    "sources": sources,
    "plan": plan,
    "lineage": lineage,
    "bucket": bucket,
}


def exponents(rows: Sequence[Row]) -> dict[str, float]:
    """By column, d log value / d log size between the last two rows."""
    if len(rows) < 2:
        return {}
    size, *columns = rows[-1]
    apart = math.log(rows[-1][size] / rows[-2][size])
    return {
        name: round(math.log(rows[-1][name] / rows[-2][name]) / apart, 2)
        for name in columns
        if apart and rows[-1][name] > 0 and rows[-2][name] > 0
    }


def measure(part: str, share: float) -> dict[str, Any]:
    """In this process, with a home of its own."""
    with tempfile.TemporaryDirectory(prefix="foundry-scale-") as name:
        os.environ["FOUNDRY_HOME"] = f"{name}/home"
        os.environ.pop("FOUNDRY_STORE", None)
        for made in ("home", "work"):
            (Path(name) / made).mkdir()
        clock = Clock()
        rows = PARTS[part](Path(name) / "work", share)
    plain = [{k: float(f"{v:.3g}") if v % 1 else int(v) for k, v in row.items()} for row in rows]
    return {
        "part": part,
        "rows": plain,
        "grows with the power": exponents(rows),
        "CPU s": round(clock.cpu, 1),
        "s": round(clock.wall, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--largest", type=float, default=1.0)
    parser.add_argument("--walk", action="store_true", help="order: every draw of 10^6 steps")
    parser.add_argument("--here", action="store_true", help="one part, in this process")
    given = parser.parse_args()
    if given.here:
        print(json.dumps(measure(given.only[0], given.largest), indent=1))
        return
    if given.walk:
        os.environ["SCALE_WALK_ALL"] = "1"
    for part in given.only:
        command = [sys.executable, __file__, "--here", "--only", part]
        subprocess.run([*command, "--largest", str(given.largest)], check=True)


if __name__ == "__main__":
    main()
