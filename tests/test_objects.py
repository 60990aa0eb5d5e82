"""Object store calls against moto, through a proxy that loses requests and answers."""

import threading

import pytest

from foundry_core import objects
from foundry_core.errors import FoundryError
from foundry_core.objects import StoreUnavailable, connect
from foundry_core.retry import Retry
from tests.faults.s3_proxy import FAULTS, FaultyProxy
from tests.s3 import s3_server, use_s3


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as url:
        yield url


@pytest.fixture
def proxied(endpoint, monkeypatch):
    """(proxy, objects behind it, the faults of the next requests)."""
    pending = []

    def decide(method, path):
        return pending.pop(0) if pending else None

    monkeypatch.setenv("FOUNDRY_S3_TIMEOUT", "0.5")
    with FaultyProxy(endpoint, decide=decide, stall_seconds=2) as proxy:
        yield proxy, connect(use_s3(monkeypatch, endpoint, proxy.url)), pending


@pytest.mark.parametrize("fault", FAULTS)
def test_calls_survive_each_fault(proxied, fault):
    proxy, store, pending = proxied
    pending += [fault]
    assert store.create("a/one", b"1" * 100)
    pending += [fault, fault]
    assert store.read("a/one") == b"1" * 100
    pending += [fault]
    store.write("a/two", b"2")
    pending += [fault]
    assert [(o.name, o.size) for o in store.find("a")] == [("a/one", 100), ("a/two", 1)]
    pending += [fault]
    tag = store.replace("a/one", b"new", store.read_tagged("a/one")[1])
    assert tag == store.read_tagged("a/one")[1]
    pending += [fault]
    store.delete("a/one", "a/never")
    assert store.names("a") == ["two"]
    assert proxy.counts[fault] == 7


def test_a_lost_answer_does_not_hide_another_winner(proxied):
    _, store, pending = proxied
    assert store.create("k", b"theirs")
    pending += ["reset_after", "error_after"]
    assert not store.create("k", b"mine")
    assert store.read("k") == b"theirs"


def test_a_conditional_overwrite_fails_for_another_or_no_object(proxied):
    _, store, _ = proxied
    store.write("k", b"1")
    old = store.read_tagged("k")[1]
    store.write("k", b"2")
    assert store.replace("k", b"3", old) is None
    assert store.read("k") == b"2"
    assert store.replace("absent", b"3", old) is None


def test_of_many_creators_one_wins(endpoint, monkeypatch):
    store = connect(use_s3(monkeypatch, endpoint))
    won = []
    threads = [
        threading.Thread(target=lambda i=i: store.create("k", b"%d" % i) and won.append(i))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("k") == b"%d" % won[0]


def test_large_files_travel_in_parts(proxied, tmp_path, monkeypatch):
    proxy, store, _ = proxied
    monkeypatch.setattr(objects, "_PART_BYTES", 5 * 2**20)
    data = bytes(range(256)) * (11 * 2**12 + 1)
    (tmp_path / "up").write_bytes(data)
    seen = iter([None, "reset_after", "error", None, "stall", "error_after"])
    proxy._decide = lambda method, path: next(seen, None)
    store.upload(tmp_path / "up", "big")
    proxy._decide = lambda method, path: None
    digest = store.download("big", tmp_path / "down", len(data))
    assert (tmp_path / "down").read_bytes() == data
    assert digest == store.digest("big", len(data))


def test_retries_are_bounded_and_named(proxied, monkeypatch):
    proxy, store, _ = proxied
    monkeypatch.setattr(objects, "RETRY", Retry(attempts=10, pause=0.001))
    proxy._decide = lambda method, path: "error"
    with pytest.raises(StoreUnavailable, match="could not write k in 10 attempts"):
        store.write("k", b"")
    assert proxy.counts["error"] == 10


def test_mistakes_are_explained(endpoint, monkeypatch, tmp_path):
    use_s3(monkeypatch, endpoint)
    with pytest.raises(FoundryError, match="bucket 'absent-bucket' does not exist"):
        connect("s3://absent-bucket/x").check()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(FoundryError, match="no complete credentials"):
        connect("s3://absent-bucket/x").check()


def test_a_listing_has_pages(endpoint, monkeypatch):
    store = connect(use_s3(monkeypatch, endpoint))
    for i in range(5):
        store.write(f"d/{i}/x", b"")
    page = store._page
    monkeypatch.setattr(store, "_page", lambda *a, **k: page(*a, **{**k, "most": 2}))
    assert [o.name for o in store.find("d")] == [f"d/{i}/x" for i in range(5)]
    assert store.folders("d") == [str(i) for i in range(5)]
    assert store.below("d").names("3") == ["x"]
