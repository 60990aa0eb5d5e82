"""The event log on S3's API (moto over HTTP): create-only puts, listing, compaction."""

import pytest
from history import tell

from foundry_core.lineage.events import EventLog
from foundry_core.lineage.files import RemoteFiles
from foundry_core.lineage.index import Index
from foundry_core.lineage.segments import compact


@pytest.fixture(scope="module")
def bucket():
    s3fs = pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    fs = s3fs.S3FileSystem(
        key="test",
        secret="test",
        endpoint_url=f"http://{host}:{port}",
        skip_instance_cache=True,
    )
    fs.mkdir("lineage")
    yield fs
    server.stop()


def test_names_are_taken_once(bucket):
    files = RemoteFiles(bucket, "lineage/once")
    assert files.create("a/b", b"one")
    assert not files.create("a/b", b"two")
    assert files.read("a/b") == b"one"
    assert (files.names(""), files.names("a"), files.names("x")) == (["a"], ["b"], [])
    with pytest.raises(FileNotFoundError):
        files.read("a/c")


@pytest.mark.slow
def test_a_log_on_s3_is_indexed_before_and_after_compaction(bucket, tmp_path):
    log = EventLog(RemoteFiles(bucket, "lineage/events"))
    tell(log)
    count = len(log.loose())
    assert Index(tmp_path / "before.duckdb", log).advance().events == count
    assert compact(log, older_than_seconds=0, least=1) == count
    assert log.loose() == []
    assert Index(tmp_path / "after.duckdb", log).advance().events == count
