"""The event log on S3's API (moto over HTTP): create-only puts, listing, compaction."""

import pytest
from history import write_history

from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index
from foundry_core.lineage.segments import compact
from tests.s3 import s3_server, use_s3


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as url:
        yield url


@pytest.fixture
def address(endpoint, monkeypatch):
    return use_s3(monkeypatch, endpoint)


@pytest.mark.slow("hundreds of requests to an S3 of our own")
def test_a_log_on_s3_is_indexed_before_and_after_compaction(address, tmp_path):
    log = EventLog(f"{address}/events")
    write_history(log)
    count = len(log.loose())
    assert Index(tmp_path / "before.duckdb", log).advance().events == count
    assert compact(log, least=1) == count
    assert log.loose() == []
    assert Index(tmp_path / "after.duckdb", log).advance().events == count
