import json
import multiprocessing
import subprocess
import sys
import time

import pytest

from foundry_core.lineage import events
from foundry_core.lineage.event_types import ArtifactCommitted, ArtifactRemoved, AttemptStarted
from foundry_core.lineage.events import EventLog, event_name

ID = "0c1e8f0a-6f3b-4a52-9d67-2b1f0e8c9a44"


def removed(log: EventLog, key: str = "k", **more) -> str:
    return log.append(ArtifactRemoved(kind="x", key=key, reason="gc"), **more)


def test_an_event_lies_under_its_day_and_time(log):
    name = removed(log, event_id=ID, at="2026-01-02T03:04:05.000006Z")
    assert name == f"2026-01-02/1767323045000006000-{ID}.json"
    event = log.read(name)
    chain = event.pop("chain")
    assert (chain["number"], chain["previous"]) == (0, "")
    assert event == {
        "schema": 1,
        "id": ID,
        "time": "2026-01-02T03:04:05.000006Z",
        "type": "artifact_removed",
        "run_id": None,
        "data": {"kind": "x", "key": "k", "reason": "gc"},
    }
    assert log.loose() == [name]


def test_the_same_event_is_written_once_and_never_overwritten(log):
    name = removed(log, key="first", event_id=ID, at="2026-01-02T03:04:05.000006Z")
    assert removed(log, key="second", event_id=ID, at="2026-01-02T03:04:05.000006Z") == name
    assert log.loose() == [name]
    assert log.read(name)["data"]["key"] == "first"


def test_numbers_that_json_lacks_are_spelled(log):
    artifact = {"key": "k", "run_id": "r", "metrics": {"loss": float("nan")}}
    rows = [{"step": 1, "name": "loss", "value": float("-inf")}]
    name = log.append(ArtifactCommitted(artifact=artifact, metric_rows=rows))
    event = json.loads(log.blobs.read(name), parse_constant=pytest.fail)
    assert event["data"]["artifact"]["metrics"] == {"loss": "NaN"}
    assert event["data"]["metric_rows"][0]["value"] == "-Infinity"
    assert event["run_id"] == "r"


def test_bulk_that_repeats_is_stored_once_beside_the_events(log):
    provenance = {"git": {"commit": "c", "diff": "+ line"}, "packages": {"numpy": "2"}}
    started = {"key": "k", "kind": "x", "attempt": "a1", "stage": "s", "provenance": provenance}
    names = [log.append(AttemptStarted(run_id=f"run {i}", **started)) for i in range(3)]
    names.append(log.append(ArtifactCommitted(artifact={"key": "k", "provenance": provenance})))
    assert len(log.blobs.names(events.BLOBS)) == 2
    for name in names:
        data = log.read(name)["data"]
        kept = data.get("provenance") or data["artifact"]["provenance"]
        assert "packages" not in kept
        assert log.blob(kept["git"]["diff_digest"]) == b"+ line"
        assert json.loads(log.blob(kept["packages_digest"])) == {"numpy": "2"}
    assert provenance["packages"] == {"numpy": "2"}, "the caller's data was changed"


def test_a_clock_set_back_does_not_reorder_facts(log, monkeypatch):
    early = [removed(log), removed(log)]
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3600 * 10**9)
    late = [removed(log), removed(EventLog(log.blobs))]
    assert log.loose() == early + late


def test_a_clock_far_ahead_elsewhere_is_not_followed(log):
    removed(log, at="2199-01-01T00:00:00.000000Z", event_id=ID)
    first, second = removed(EventLog(log.blobs)), removed(log)
    assert "2199" not in first + second


def test_what_happens_now_comes_after_what_a_faster_clock_wrote(log, monkeypatch):
    removed(log)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 180 * 10**9)
    fast = removed(EventLog(log.blobs))
    monkeypatch.setattr(time, "time_ns", real)
    assert event_name(log.now(), ID) > fast, "log had looked before that was written"


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "2026-notes.json",
        f"1767323045000006000-{ID}.json",
        f"2026-01-02/1767323045000006000-{ID}.json.part",
        "2026-01-02/notes.json",
        "2026-01-02/1767323045000006000-x.json",
        "9999-01-02",
        "segments/notes.parquet",
    ],
)
def test_files_that_others_left_among_the_events_are_not_listed(log, name):
    log.blobs.create(name, b"{}")
    written = removed(log)
    assert (log.loose(), log.segments()) == ([written], [])
    assert event_name(EventLog(log.blobs).now(), ID) > written


@pytest.mark.parametrize(
    "change", [{"id": "x"}, {"time": "2026-01-02"}, {"time": 7}, {"data": []}, {"type": None}]
)
def test_what_is_not_the_event_of_its_name_is_unreadable(log, change):
    name = removed(log)
    event = log.read(name)
    log.blobs.delete(name)
    log.blobs.create(name, json.dumps(event | change).encode())
    with pytest.raises(ValueError, match="is not an event"):
        log.read(name)


def _append_many(root: str, count: int) -> None:
    log = EventLog(root)
    for _ in range(count):
        removed(log)


def test_processes_append_without_loss(log):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(log.blobs.uri, 25)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len({log.read(name)["id"] for name in log.loose()}) == 100


def test_importing_events_pulls_in_nothing_heavy():
    heavy = "duckdb, numpy, pydantic, fsspec, torch, yaml, rich"
    code = f"import sys, foundry_core.lineage.events as _\nfor name in {heavy.split(', ')!r}:\n"
    code += "    assert name not in sys.modules, name\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_names_sort_by_time():
    moments = ["1999-12-31T23:59:59.999999Z", "2026-01-01T00:00:00.000000Z"]
    names = [event_name(moment, "id") for moment in [*moments, "2026-01-01T00:00:00.000001Z"]]
    assert names == sorted(names)
