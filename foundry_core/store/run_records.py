"""What runs asked for, as documents of a store: what gc keeps artifacts for, and what plans explain
themselves against.

    runs/<run id>.json               one of the last runs
    runs/latest-<pipeline>           the id of a pipeline's last one
    runs/packed/<count>-<digest>     many older ones, a line each

As with events, a pack is there before what it holds is deleted, so a crash or a second process that
packs leaves a run in two places at worst.
"""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from foundry_core.blobs import Blobs, is_name
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError
from foundry_core.files import json_line, json_text, sha256_hex
from foundry_core.store.manifest import MOST_BYTES

_PACKS = "runs/packed"
# So many runs at most have a file of their own, and so few after they were packed.
_LOOSE, _KEPT = 48, 16
_PACK_RUNS = 1000
_LOOKS = 4
Record = dict[str, Any]


def write_run(documents: Blobs, record: Record) -> None:
    """Keeps a run's record as the last of its pipeline; packs old ones when there are many."""
    run_id = record["run_id"]
    documents.write(f"runs/{run_id}.json", json_text(record).encode())
    documents.write(f"runs/latest-{record['pipeline']}", f"{run_id}\n".encode())
    names = documents.names("runs")
    loose = _ids(names)
    if len(loose) > _LOOSE:
        last = {name for name in names if name.startswith("latest-")}
        kept = {latest_run(documents, name.removeprefix("latest-")) for name in last}
        _pack(documents, [one for one in loose[:-_KEPT] if one not in kept])


def latest_run(documents: Blobs, pipeline: str) -> str | None:
    """The id of a pipeline's last run."""
    try:
        return documents.read(f"runs/latest-{pipeline}", most=1000).decode().strip()
    except (FileNotFoundError, ValueError):
        return None


def load_run(documents: Blobs, run_id: str) -> Record:
    """What `write_run` kept. FoundryError for an unknown run, and for what is no run's record."""
    if is_name(run_id):
        found = _loose(documents, run_id) or _packed(documents).get(run_id)
        if found:
            return found
    raise FoundryError(f"unknown run {run_id!r}", nearest(run_id, run_ids(documents)))


def run_ids(documents: Blobs) -> list[str]:
    """Every recorded run, oldest first (a run's id begins with its time)."""
    return sorted({*_ids(documents.names("runs")), *_packed(documents)})


def _ids(names: list[str]) -> list[str]:
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def all_runs(documents: Blobs) -> list[Record]:
    """Every record. FoundryError for one that cannot be read."""
    with ThreadPoolExecutor(8) as pool:
        loose = pool.map(lambda run_id: _loose(documents, run_id), _ids(documents.names("runs")))
        known = {record["run_id"]: record for record in loose if record}
    return list((_packed(documents) | known).values())


def _loose(documents: Blobs, run_id: str) -> Record | None:
    name = f"runs/{run_id}.json"
    try:
        return _checked(documents.read(name, most=MOST_BYTES), run_id)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _unreadable(name, error) from None


def _packed(documents: Blobs) -> dict[str, Record]:
    """id → record of every packed run. A pack that was listed may be gone when it is read: what it
    held is in another."""
    for _ in range(_LOOKS):
        with contextlib.suppress(FileNotFoundError):
            packs = [_read_pack(documents, name) for name in documents.names(_PACKS)]
            return {run_id: record for pack in packs for run_id, record in pack.items()}
    raise FoundryError(f"{documents.uri}/{_PACKS} changes while it is read", "run again")


def _read_pack(documents: Blobs, name: str) -> dict[str, Record]:
    path = f"{_PACKS}/{name}"
    data = documents.read(path)
    if name.rpartition("-")[2] != sha256_hex(data):
        raise _unreadable(path, ValueError("its digest is another"))
    records = [json.loads(line) for line in data.splitlines()]
    return {record["run_id"]: record for record in records}


def _pack(documents: Blobs, run_ids: list[str]) -> None:
    """Packs take in those that are not more than twice their size: few are ever there."""
    runs = {run_id: record for run_id in run_ids if (record := _loose(documents, run_id))}
    packed = list(runs)
    merged = []
    sizes = ((int(name.partition("-")[0]), name) for name in documents.names(_PACKS))
    for count, name in sorted(sizes):
        if count > 2 * len(runs) or count + len(runs) > _PACK_RUNS:
            break
        with contextlib.suppress(FileNotFoundError):  # another process has it
            runs = _read_pack(documents, name) | runs
            merged.append(name)
    data = "".join(json_line(runs[one]) for one in sorted(runs)).encode()
    written = f"{len(runs)}-{sha256_hex(data)}"
    documents.create(f"{_PACKS}/{written}", data)
    documents.delete(*(f"runs/{one}.json" for one in packed))
    documents.delete(*(f"{_PACKS}/{name}" for name in merged if name != written))


def _checked(data: bytes, run_id: str) -> Record:
    record = json.loads(data)
    stages = record.get("stages") if isinstance(record, dict) else None
    if not isinstance(stages, dict) or record.get("run_id", run_id) != run_id:
        raise ValueError("another run's, or none")
    for name, stage in stages.items():
        if not (isinstance(stage, dict) and isinstance(stage.get("key"), str)):
            raise ValueError(f"stage {name!r} has no key")
    return {"run_id": run_id, "pipeline": ""} | record


def _unreadable(name: str, error: ValueError) -> FoundryError:
    return FoundryError(
        f"store: {name} is no record of a run ({error})",
        "restore the file, or delete it: plans then explain against other runs, and gc does not "
        "know what these used",
    )
