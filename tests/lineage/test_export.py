import csv
import json
import re
import uuid

import duckdb
import pytest

from foundry_core.errors import FoundryError
from foundry_core.lineage.export import TABLES, export_tables, openlineage, write_openlineage


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_every_table_is_exported_whole_and_the_same_each_time(lineage, tmp_path, form):
    written = export_tables(lineage, tmp_path / "out", form)
    assert [path.stem for path in written] == list(TABLES)
    with duckdb.connect() as reader:
        for path in written:
            (count,) = lineage.execute(f"select count(*) from {path.stem}").fetchone()
            if form == "parquet":
                read = reader.execute(f"select count(*) from read_parquet('{path}')").fetchone()[0]
            else:
                with path.open() as stream:
                    read = len(list(csv.reader(stream))) - 1
            assert read == count, path
    before = {path: path.read_bytes() for path in written}
    export_tables(lineage, tmp_path / "out", form)
    assert before == {path: path.read_bytes() for path in written}


def test_a_folder_that_cannot_be_written(lineage, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FoundryError, match="cannot be written"):
        export_tables(lineage, tmp_path / "file", "csv")
    with pytest.raises(FoundryError, match="cannot be written"):
        write_openlineage(iter(()), tmp_path / "file" / "openlineage.jsonl")


def test_openlineage_events_follow_the_specification(lineage, history):
    names = history.names
    events = list(openlineage(lineage))
    by_type = {}
    for event in events:
        by_type.setdefault(event["eventType"], []).append(event)
        uuid.UUID(event["run"]["runId"])
        assert re.fullmatch(r"2026-05-01T10:\d\d:\d\d\.\d{6}Z", event["eventTime"])
        assert event["schemaURL"].endswith("/OpenLineage.json#/$defs/RunEvent")
        facets = [event["run"]["facets"], event["job"]["facets"]]
        facets += [dataset["facets"] for dataset in event["inputs"] + event["outputs"]]
        for facet in (facet for group in facets for facet in group.values()):
            assert facet["_producer"] and facet["_schemaURL"].startswith("https://openlineage.io/")
    assert {kind: len(found) for kind, found in by_type.items()} == {
        "START": 7,
        "COMPLETE": 6,
        "ABORT": 1,
    }
    policy = names.policies[1]["key"]
    (trained,) = [
        event
        for event in by_type["COMPLETE"]
        if event["outputs"][0]["name"] == f"train_vla/{policy}"
    ]
    assert trained["job"]["name"] == "demo.vla"
    assert f"convert_robot/{names.robot['key']}" in [
        item["name"] for item in trained["inputs"]
    ] or (f"robot/{names.robot['key']}" in [item["name"] for item in trained["inputs"]])
    start = [e for e in by_type["START"] if e["run"]["runId"] == trained["run"]["runId"]]
    assert len(start) == 1 and start[0]["outputs"] == []
    assert trained["run"]["facets"]["parent"]["job"]["name"] == "demo"
    assert list(openlineage(lineage)) == events


def test_openlineage_of_one_run_goes_to_a_file(lineage, history, tmp_path):
    path = tmp_path / "events.ndjson"
    count = write_openlineage(openlineage(lineage, run_id=history.names.second), path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert count == len(lines) == 4
