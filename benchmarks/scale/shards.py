"""Shards of a dataset, as every rank opens it."""

import json
from pathlib import Path

import numpy as np
from measured import Clock, Part, Row, growing, resident

from foundry_core.data.shards.index import build_index
from foundry_core.data.shards.packed import DATASET_INDEX, Packed, write_index
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.shards.write import DATASET_MANIFEST, shard_name

_EPISODES, _MEMBERS, _LOOK_UPS = 10, 12, 2_000


def measure(folder: Path, shards: int) -> Row:
    """`shards` shards of ten episodes with twelve members each, in their manifest and their index:
    no byte of a shard itself is read to open them."""
    _write(folder, shards)
    before, clock = resident(), Clock()
    opened = ShardSet(folder)
    count = len(opened)
    opened.key(0)
    seconds, memory = clock.cpu, resident() - before
    assert count == _EPISODES * shards
    draw, clock = np.random.default_rng(0), Clock()
    for sample in draw.integers(0, count, _LOOK_UPS).tolist():
        opened.key(sample)
    return {
        "shards": shards,
        "manifest MB": (folder / DATASET_MANIFEST).stat().st_size / 1e6,
        "index MB": (folder / DATASET_INDEX).stat().st_size / 1e6,
        "CPU s to open": seconds,
        "MiB of a process": memory,
        "us of a look-up": 1e6 * clock.cpu / _LOOK_UPS,
        "MiB after 2,000": resident() - before,
    }


def _write(folder: Path, shards: int) -> None:
    names = [f"e{e:08d}.camera_{m:06d}.jpg" for e in range(_EPISODES) for m in range(_MEMBERS)]
    members = [(name, 512 + 1_024 * n, 512) for n, name in enumerate(names)]
    one = Packed.of(build_index(members, 1_024 * len(members) + 1_024))
    line = {"num_sequences": _EPISODES, "bytes": one.tar_bytes, "sha256": "a" * 64}
    line["index"] = one.digest.hex()
    with (folder / DATASET_MANIFEST).open("w") as stream:
        for n in range(shards):
            stream.write(json.dumps({"shard": shard_name(n), **line}) + "\n")
    write_index(folder / DATASET_INDEX, (one for _ in range(shards)), shards)


PART = Part(sizes=growing(100_000), measure=measure)
