"""Files on a disk: those of one artifact, and those of a raw source. What each plan pays to see
that they are as they were."""

import time
from pathlib import Path

from artifacts import artifact
from measured import Clock, Part, Row, growing

from foundry_core.files import sha256_hex
from foundry_core.identity.sources import fingerprint
from foundry_core.store.local import LocalStore
from foundry_core.store.manifest import MANIFEST, File

# Until a file's time and size may stand for its bytes.
_SETTLED_SECONDS = 2.5


def measure_artifact(folder: Path, count: int) -> Row:
    """One artifact of `count` files of a byte each."""
    store = LocalStore.open(str(folder / "store"))
    key, digest = sha256_hex(str(count)), sha256_hex("x")
    place = store.path("convert_robot", key)
    place.mkdir(parents=True)
    files = []
    for number in range(count):
        name = f"shard_{number:06d}.tar"
        (place / name).write_text("x")
        files.append(File(path=name, size=1, sha256=digest))
    clock = Clock()
    (place / MANIFEST).write_bytes(artifact(key, files, kind="convert_robot").encoded())
    made, clock = clock.cpu, Clock()
    first = store.state("convert_robot", key)
    assert first.status == "ok", first.problem
    looked = clock.cpu
    time.sleep(_SETTLED_SECONDS)
    store.verify("convert_robot", key)
    clock = Clock()
    assert store.state("convert_robot", key).status == "ok"
    return {
        "files": count,
        "manifest MB": (place / MANIFEST).stat().st_size / 1e6,
        "CPU s to write it": made,
        "CPU s of the first look": looked,
        "CPU s of every plan": clock.cpu,
    }


def measure_source(folder: Path, count: int) -> Row:
    """A folder of `count` files of 1 KB each, a thousand in a folder."""
    raw = folder / "raw"
    for number in range(count):
        below = raw / str(number // 1_000)
        if number % 1_000 == 0:
            below.mkdir(parents=True)
        (below / f"{number}.bin").write_bytes(number.to_bytes(1_024, "big"))
    time.sleep(_SETTLED_SECONDS)
    clock = Clock()
    digest = fingerprint(raw)
    hashed, clock = clock.cpu, Clock()
    assert fingerprint(raw) == digest
    return {"files": count, "CPU s hashed": hashed, "CPU s of every plan": clock.cpu}


ARTIFACT = Part(sizes=growing(100_000), measure=measure_artifact)
SOURCE = Part(sizes=growing(100_000), measure=measure_source)
