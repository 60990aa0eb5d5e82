"""Lineage at 100,000 artifacts and 300,000 edges: rebuild, advance, closures.

    python benchmarks/lineage.py [--artifacts N] [--events FOLDER]

Synthetic events of the shape that runs write (recipes, provenance, metrics, files), compacted into
segments. Prints one JSON object; targets in brackets are those of the design.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rows import Row, add_rows_argument, write_rows

from foundry_core.files import sha256_hex
from foundry_core.lineage.connection import attach
from foundry_core.lineage.events import SCHEMA, EventLog, encode, iso_time
from foundry_core.lineage.index import Index
from foundry_core.lineage.segments import write_segment

KINDS = (
    "convert_text",
    "convert_captions",
    "convert_robot",
    "train_tokenizer",
    "train_llm",
    "train_vlm",
    "train_vla",
    "evaluate",
)
_PACKAGES = encode({f"package-{number}": "1.0" for number in range(250)})
_PACKAGES_DIGEST = sha256_hex(_PACKAGES)
_INPUTS = (0, 1, 2, 3, 4, 4, 5, 5)
_SLOTS = ("model", "data", "extra", "text", "stats")
_START = 1_760_000_000_000_000


def synthetic_events(artifacts: int, seed: int = 0, deep: bool = False) -> Iterator[dict[str, Any]]:
    """The events of artifacts/8 runs of eight stages with three inputs each on average."""
    draw = random.Random(seed)
    clock = _START
    built: list[tuple[str, str, str]] = []

    def event(kind: str, run: str, data: dict[str, Any]) -> dict[str, Any]:
        nonlocal clock
        clock += 1_000_000
        stamp = {
            "id": str(uuid.UUID(int=draw.getrandbits(128), version=4)),
            "time": iso_time(clock),
        }
        return {"schema": SCHEMA, "type": kind, "run_id": run, "data": data, **stamp}

    for number in range(artifacts // len(KINDS)):
        run = f"run-{seed}-{number:06d}"
        stages = [_stage(draw, built, run, position, deep) for position in range(len(KINDS))]
        planned = [{k: v for k, v in stage.items() if k != "contents"} for stage in stages]
        git = {"commit": _hex("commit", number // 50)[:40], "dirty": False, "diff_digest": None}
        start = {"pipeline": "synthetic", "overrides": [["llm.seed", number]], "argv": ["foundry"]}
        yield event("run_started", run, {"run_id": run, "git": git, "stages": planned, **start})
        for stage in stages:
            for kind, data in _stage_events(draw, stage, run, git):
                yield event(kind, run, data)
        done = {"run_id": run, "status": "succeeded", "seconds": 60.0, "metrics": {}, "error": ""}
        yield event("run_finished", run, done)


def _hex(*parts: Any) -> str:
    return sha256_hex(repr(parts))


def _stage(
    draw: random.Random, built: list[tuple[str, str, str]], run: str, position: int, deep: bool
) -> dict[str, Any]:
    """One stage. Its inputs are artifacts of earlier positions, most of its own run, some reused
    from the last 30 runs; `deep` lets them be anything recent, so that nearly all of the history
    becomes one ancestry."""
    key = _hex("key", run, position)
    recent = built[-30 * len(KINDS) :]
    if deep:
        chosen = draw.sample(recent, min(3, len(recent)))
    else:
        own = {kind: entry for entry in built[-position:] for kind in entry[:1]} if position else {}
        kinds = draw.sample(KINDS[:position], min(_INPUTS[position], position))
        olds = [[entry for entry in recent if entry[0] == kind] for kind in kinds]
        chosen = [
            draw.choice(old) if draw.random() < 0.3 else own[kind]
            for kind, old in zip(kinds, olds, strict=True)
        ]
    inputs = [
        {"slot": slot, "label": kind, "stage": kind, "key": upstream}
        for slot, (kind, upstream, _) in zip(_SLOTS, chosen, strict=False)
    ]
    recipe = {
        "model": {"layers": draw.randint(2, 32), "width": 64 * draw.randint(1, 32), "heads": 8},
        "training": {"lr": draw.random(), "tokens": draw.randint(1, 10**9), "schedule": "wsd"},
    }
    built.append((KINDS[position], key, _hex("content", run, position)))
    return {
        "name": KINDS[position],
        "kind": KINDS[position],
        "key": key,
        "action": "run",
        "reasons": [{"category": "CONFIG", "path": "training.lr", "old": 1, "new": 2}],
        "recipe": recipe,
        "resources": {"cpus": 2, "gpus": 1},
        "seed": draw.randrange(10),
        "code": "version:1",
        "sources": {},
        "inputs": inputs,
        "contents": [content for _, _, content in chosen],
    }


def _stage_events(
    draw: random.Random, stage: dict[str, Any], run: str, git: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    key, kind = stage["key"], stage["kind"]
    common = {"key": key, "attempt": "a1", "run_id": run}
    provenance = {
        "git": git,
        "packages_digest": _PACKAGES_DIGEST,
        "hardware": {"cpu": "AMD EPYC", "cores": 2, "memory": 2**34, "gpus": []},
        "host": "vm",
        "python": "3.11.7",
        "environment": {"OMP_NUM_THREADS": "1"},
        "command": ["foundry", "run", "synthetic"],
    }
    attempt = {"kind": kind, "stage": kind, "host": "vm", "pid": 1, "provenance": provenance}
    yield "attempt_started", common | attempt
    files = [
        {"path": f"part_{i}", "size": 10**6, "sha256": _hex(key, i), "role": "output"}
        for i in range(2)
    ]
    artifact = {name: stage[name] for name in ("key", "kind", "recipe", "seed", "code", "sources")}
    artifact |= {
        "content": _hex("content", run, KINDS.index(kind)),
        "input_content_key": _hex("input-content key", run, kind),
        "inputs": [
            edge | {"kind": edge["label"], "content": content}
            for edge, content in zip(stage["inputs"], stage["contents"], strict=True)
        ],
        "files": files,
        "metrics": {"loss": draw.random(), "tokens": 10**6},
        "attempt": "a1",
        "run_id": run,
        "created": "2026-01-01T00:00:00+00:00",
        "seconds": 10.0,
        "provenance": {"git": git},
        "linked_to": None,
    }
    episodes = [
        {"task": "reach", "scenario": i, "success": draw.random() < 0.7, "steps": 80, "seed": i}
        for i in range(4 if kind == "evaluate" else 0)
    ]
    won = sum(episode["success"] for episode in episodes)
    counts = {"n": 4, "successes": won, "crashed": 0, "pending": 0, "rate": won / 4}
    scores = [{"task": task, **counts, "low": 0.0, "high": 1.0} for task in ("", "reach")]
    rows = {
        "metric_rows": [{"step": s, "name": "loss", "value": draw.random()} for s in (0, 100)],
        "episode_rows": episodes,
        "score_rows": scores if episodes else [],
    }
    yield "artifact_committed", {"artifact": artifact} | rows
    yield "attempt_finished", common | {"state": "committed", "seconds": 10.0, "gpu_seconds": 10.0}
    resolved = {"run_id": run, "stage": kind, "key": key, "artifact_key": key, "action": "run"}
    yield "stage_resolved", resolved


def write_log(root: Path, artifacts: int, deep: bool = False) -> EventLog:
    log = EventLog(root)
    log.put_blob(_PACKAGES)
    batch: list[dict[str, Any]] = []
    for event in synthetic_events(artifacts, deep=deep):
        batch.append(event)
        if len(batch) == 10_000:
            write_segment(log, batch)
            batch = []
    if batch:
        write_segment(log, batch)
    return log


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def advances(index: Index, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of advances that take in 20 new events each, and of those that find nothing new."""
    gaining, idle = [], []
    for number in range(rounds):
        for _, event in zip(range(20), synthetic_events(24, seed=number + 1), strict=False):
            index.log.append_data(event["type"], event["data"] | {"run_id": event["run_id"]})
        gaining.append(timed(index.advance))
        idle.append(timed(index.advance))
    return gaining, idle


def closures(path: Path, artifacts: int) -> dict[str, list[float]]:
    """Seconds per query in one open connection, over artifacts from all of the history."""
    draw = random.Random(1)
    runs = artifacts // len(KINDS)
    places = [(draw.randrange(runs), draw.randrange(len(KINDS))) for _ in range(4)]
    places += [(0, 0), (runs - 1, len(KINDS) - 1)]
    keys = [_hex("key", f"run-0-{run:06d}", position) for run, position in places]
    found: dict[str, list[float]] = {}
    with attach(path) as connection:
        for macro in ("upstream", "downstream", "trace"):
            for key in keys:
                query = f"select * from {macro}('{key[:16]}')"
                found.setdefault(macro, []).append(
                    timed(lambda query=query: connection.execute(query).fetchall())
                )
    return found


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    return {
        "count": len(seconds),
        "median": round(1e3 * statistics.median(seconds), 1),
        "worst": round(1e3 * max(seconds), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=int, default=100_000)
    parser.add_argument("--events", type=Path, help="reuse or create the synthetic log here")
    parser.add_argument("--deep", action="store_true", help="one ancestry of nearly everything")
    add_rows_argument(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        events = arguments.events or Path(folder) / "events"
        log = (
            EventLog(events)
            if events.is_dir()
            else write_log(events, arguments.artifacts, arguments.deep)
        )
        index = Index(Path(folder) / "lineage.duckdb", log)
        rebuild = min(timed(index.rebuild) for _ in range(3))
        gaining, idle = advances(index, 20)
        queries = closures(index.path, arguments.artifacts)
        with attach(index.path) as connection:
            tables = ("event", "artifact", "artifact_input", "stage_spec", "file", "metric")
            counts = {
                table: connection.execute(f"select count(*) from {table}").fetchone()[0]
                for table in tables
            }
        result = {
            "rows": counts,
            "index_megabytes": round(index.path.stat().st_size / 1e6, 1),
            "rebuild_seconds [< 5]": round(rebuild, 2),
            "advance_20_events_ms [< 500]": _milliseconds(gaining),
            "advance_nothing_new_ms": _milliseconds(idle),
            "closure_ms [< 300]": {
                macro: _milliseconds(seconds) for macro, seconds in queries.items()
            },
        }
    print(json.dumps(result, indent=1))
    size = f"lineage of {counts['artifact']:,} artifacts"
    rows = [
        Row(what=f"{size}: rebuild from Parquet", unit="s", ours=rebuild),
        Row(what=f"{size}: advance of 20 events", unit="s", ours=statistics.median(gaining)),
        *(
            Row(what=f"{size}: {macro}", unit="s", ours=statistics.median(seconds))
            for macro, seconds in queries.items()
        ),
    ]
    write_rows(arguments.rows, rows)


if __name__ == "__main__":
    main()
