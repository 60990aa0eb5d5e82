"""The store on S3's API (moto over HTTP): commits, leases, checks, and runs from end to end."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import s3fs

from flows.cli import main
from foundry_core.errors import FoundryError
from foundry_core.lineage import queries
from foundry_core.objects import Objects, StoreUnavailable, connect
from foundry_core.retry import Retry
from foundry_core.store import lease as lease_module
from foundry_core.store.gc import find_garbage
from foundry_core.store.lease import LeaseLost
from foundry_core.store.manifest import MANIFEST, Artifact, content_digest, scan
from foundry_core.store.open import open_store
from foundry_core.store.references import find
from foundry_core.store.s3 import S3Store
from tests.evaluation.published import lbm_tree
from tests.faults.s3_proxy import FaultyProxy
from tests.s3 import s3_server, use_s3
from tests.support import WORDS

KEY = "ab" * 32


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as url:
        yield url


@pytest.fixture
def uri(endpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    return use_s3(monkeypatch, endpoint)


def attempt(store, text, key=KEY):
    """(artifact, folder) of an attempt that wrote this text, ready to commit."""
    name, folder, _ = store.attempt(key)
    (folder / "deep").mkdir()
    (folder / "deep" / "text.txt").write_text(text)
    files = scan(folder)
    artifact = Artifact(
        kind="emit",
        key=key,
        content=content_digest(files),
        input_content_key=f"c{key[1:]}",
        code="",
        code_fingerprint="",
        recipe={},
        seed=0,
        sources={},
        inputs=(),
        files=files,
        metrics={},
        attempt=name,
        run_id="r",
        created=f"2026-01-01T00:00:00.{name[1:]:>06}+00:00",
        seconds=1.0,
    )
    return artifact, folder


def build(store, text, key=KEY):
    artifact, folder = attempt(store, text, key)
    assert store.commit(artifact, folder)
    return artifact


def elsewhere(monkeypatch, tmp_path, uri, name="elsewhere"):
    """The store as another host sees it, whose home is empty."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / name))
    return open_store(uri)


def test_a_commit_is_read_on_another_host(uri, monkeypatch, tmp_path):
    artifact = build(open_store(uri), "hello")
    other = elsewhere(monkeypatch, tmp_path, uri)
    state = other.state("emit", KEY)
    assert (state.status, state.artifact.content) == ("ok", artifact.content)
    assert (other.files_path(state.artifact) / "deep/text.txt").read_text() == "hello"
    assert other.by_content("emit", artifact.input_content_key).key == KEY
    assert other.verify("emit", KEY).status == "ok"
    assert other.artifacts() == [("emit", KEY)]
    assert other.documents.names("work") == []


def test_of_concurrent_committers_one_wins_and_the_losers_leave_nothing(uri):
    stores = [open_store(uri) for _ in range(4)]
    ready = [attempt(store, f"text {i}") for i, store in enumerate(stores)]
    assert len({folder.name for _, folder in ready}) == 4
    won = []

    def commit(store, artifact, folder):
        if store.commit(artifact, folder):
            won.append(artifact)

    threads = [
        threading.Thread(target=commit, args=(store, *work))
        for store, work in zip(stores, ready, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert open_store(uri).verify("emit", KEY).artifact.content == won[0].content
    uploads = [name for name in stores[0].documents.names(f"emit/{KEY}") if "files" in name]
    assert len(uploads) == 1


def test_who_lost_the_lease_does_not_commit(uri):
    store = open_store(uri)
    artifact, folder = attempt(store, "late")

    def verify():
        raise LeaseLost("gone")

    with pytest.raises(LeaseLost):
        store.commit(artifact, folder, verify)
    store.discard(KEY, artifact.attempt)
    assert store.state("emit", KEY).status == "missing"
    assert [o.name for o in store.documents.find(f"emit/{KEY}")] == []


@pytest.mark.parametrize("way", ["deleted", "cut", "flipped"])
def test_damage_is_found_in_the_listing_and_named(uri, way):
    store = open_store(uri)
    build(store, "hello")
    (name,) = [o.name for o in store.documents.find(f"emit/{KEY}") if "text" in o.name]
    if way == "deleted":
        store.documents.delete(name)
    else:
        store.documents.write(name, b"hell" if way == "cut" else b"hallo")
    state = store.state("emit", KEY)
    assert state.status == "corrupt"
    assert "deep/text.txt" in state.problem
    assert store.set_aside("emit", KEY)
    assert not store.set_aside("emit", KEY)
    build(store, "hello")
    assert store.state("emit", KEY).status == "ok"


def test_bytes_that_only_the_digest_shows_are_found_by_reading(uri, monkeypatch, tmp_path):
    store = open_store(uri)
    artifact = build(store, "hello")
    other = elsewhere(monkeypatch, tmp_path, uri)
    monkeypatch.setattr(other._objects.__class__, "_parts", lambda *a: [b"hallo"])
    assert other.state("emit", KEY).status == "ok"
    with pytest.raises(FoundryError, match=r"deep/text.txt: the store has a file with sha256"):
        other.files_path(artifact)
    assert other.state("emit", KEY).status == "corrupt"
    assert "another digest" in other.verify("emit", KEY).problem
    monkeypatch.undo()
    assert other.verify("emit", KEY).status == "ok"
    assert other.state("emit", KEY).status == "ok"


def test_a_lease_is_held_by_one_and_released(uri):
    store = open_store(uri)
    with store.acquire(KEY) as held:
        held.verify()
        assert store.leased() == {KEY}
        assert store.acquire(KEY, done=iter([False, True]).__next__) is None
    assert store.leased() == set()
    with store.acquire(KEY) as again:
        again.verify()


def test_of_many_takers_of_a_dead_lease_one_holds_it(uri, monkeypatch):
    store = open_store(uri)
    dead = {"token": "t", "host": "elsewhere", "boot": "", "pid": 1, "start": "", "beat": 0}
    store.documents.create(f"leases/{KEY}/{7:012d}", json.dumps(dead).encode())
    held, gave_up = [], threading.Event()

    def take():
        lease = open_store(uri).acquire(KEY, ttl=0.3, done=gave_up.is_set)
        if lease:
            with lease:
                held.append(lease)
                gave_up.wait(20)
                lease.verify()

    threads = [threading.Thread(target=take) for _ in range(4)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    while not held and time.monotonic() - started < 20:
        time.sleep(0.05)
    time.sleep(1.5)
    gave_up.set()
    for thread in threads:
        thread.join()
    assert len(held) == 1


def test_a_beating_lease_is_kept_and_a_stopped_one_taken(uri, monkeypatch):
    monkeypatch.setattr(lease_module, "_HEARTBEAT_SECONDS", 0.1)
    store = open_store(uri)
    with store.acquire(KEY) as held:
        # Another host cannot look at our process: only the heartbeat tells it that we live.
        monkeypatch.setattr(lease_module, "is_alive", lambda holder: False)
        deadline = time.monotonic() + 3
        late = lambda: time.monotonic() > deadline  # noqa: E731
        assert store.acquire(KEY, ttl=1.5, done=late) is None
        held.verify()
        held._stop.set()
        with store.acquire(KEY, ttl=0.5) as taken:
            taken.verify()
            with pytest.raises(LeaseLost):
                held.verify()
            assert not held._renew(1)
        with pytest.raises(LeaseLost):
            held.verify()


def test_an_uncertain_commit_keeps_its_uploads(endpoint, uri, monkeypatch):
    """The answer of the deciding put is lost ten times: it happened, and must be whole."""
    with FaultyProxy(endpoint, decide=lambda *_: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr("foundry_core.objects.RETRY", Retry(attempts=10, pause=0.001))
        s3fs.S3FileSystem.clear_instance_cache()
        store = open_store(uri)
        artifact, folder = attempt(store, "hello")
        lost = lambda method, path: (  # noqa: E731
            "reset_after" if method in ("PUT", "GET") and "artifact.json" in path else None
        )
        proxy._decide = lost
        with pytest.raises(StoreUnavailable):
            store.commit(artifact, folder)
        proxy.calm = True
        store.discard(KEY, artifact.attempt)
        assert store.verify("emit", KEY).status == "ok"


def test_mistakes_are_explained(uri, monkeypatch, capsys):
    with pytest.raises(FoundryError, match="'no-such-bucket' does not exist"):
        open_store("s3://no-such-bucket/x")
    with pytest.raises(FoundryError, match="no address of an object store"):
        open_store("gs://bucket/x")
    monkeypatch.setenv("FOUNDRY_STORE", "s3://no-such-bucket/x")
    assert main(["plan", str(WORDS)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "'no-such-bucket' does not exist" in error
    store = open_store(uri)

    def denied(*arguments, **options):
        raise PermissionError("Access Denied")

    with monkeypatch.context() as patch:
        patch.setattr(store.documents.__class__, "_put", denied)
        with pytest.raises(FoundryError, match="may not write runs/r"):
            store.documents.write("runs/r", b"")
    monkeypatch.setenv("FOUNDRY_CACHE_GB", "much")
    with pytest.raises(FoundryError, match="FOUNDRY_CACHE_GB = 'much'"):
        open_store(uri)


def cli(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def run_words(uri, *overrides):
    return run_pipeline(WORDS, uri, *overrides)


def run_pipeline(pipeline, uri, *overrides):
    """One run, stage after stage, without Prefect; ({stage: action}, the run)."""
    from flows.runs.engine import PipelineRun
    from flows.runs.planning import Request, prepare
    from foundry_core.config.overrides import parse_override

    pairs = tuple(parse_override(text) for text in overrides)
    run = PipelineRun(prepare(Request(pipeline=str(pipeline), overrides=pairs), open_store(uri)))
    run.start()
    for name in run.affected():
        run.stage(name)
    result = run.finish("succeeded")
    return {stage["name"]: stage["action"] for stage in result["stages"]}, run


def test_runs_reuse_what_another_host_built_and_plan_without_downloads(
    endpoint, uri, monkeypatch, tmp_path
):
    assert set(run_words(uri)[0].values()) == {"run"}
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "second"))
    asked = []
    with FaultyProxy(endpoint, decide=lambda method, path: asked.append((method, path))) as proxy:
        monkeypatch.setenv("FOUNDRY_STORE", uri)
        done = cli("plan", str(WORDS), "--json", AWS_ENDPOINT_URL=proxy.url)
    assert done.returncode == 0, done.stderr
    assert {stage["action"] for stage in json.loads(done.stdout)["stages"]} == {"reuse"}
    assert asked
    assert not [ask for ask in asked if ask[0] == "GET" and "/files-" in ask[1].partition("?")[0]]
    actions, run = run_words(uri, "first.comment=changed")
    assert actions == {"first": "run", "second": "reuse", "model": "reuse", "total": "reuse"}
    model = run.artifact("model")
    assert model.linked_to
    assert run.prepared.store.state("train", model.key).status == "ok"
    assert (run.prepared.store.files_path(model) / "weight.txt").is_file()
    assert run_words(uri, "model.steps=6")[0]["model"] == "run"
    told = "".join(o.read_text() for o in (tmp_path / "second").rglob("*.json*"))
    assert "test-secret" not in told


@pytest.mark.slow("whole runs over an S3 of our own")
def test_a_run_from_the_command_line(uri):
    first = cli("run", str(WORDS), "--json", FOUNDRY_STORE=uri)
    assert first.returncode == 0, first.stderr
    assert {stage["action"] for stage in json.loads(first.stdout)["stages"]} == {"run"}
    assert cli("lineage", "verify", FOUNDRY_STORE=uri).returncode == 0
    rebuilt = json.loads(cli("lineage", "rebuild", "--json", FOUNDRY_STORE=uri).stdout)
    assert rebuilt["artifacts without an event, now told"] == 0


def test_objects_are_imported_and_used_and_garbage_goes(uri, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FOUNDRY_STORE", uri)
    store = open_store(uri)
    place = f"{uri.removesuffix('/store')}/outside"
    connect(place).write("text.txt", b"one\ntwo\n")
    assert main(["lineage", "import", "emit", place, "--name", "text@1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert store.state("emit", found["key"]).status == "ok"
    build(store, "never reached by anything")
    assert main(["lineage", "gc", "--grace-hours", "0", "--apply", "--json"]) == 0
    assert [row["key"] for row in json.loads(capsys.readouterr().out)["artifacts"]] == [KEY]
    assert store.artifacts() == [("emit", found["key"])]
    assert [o.name for o in store.documents.find(f"emit/{KEY}")] == []
    document = {"stages": {"text": {"import": {"uri": place, "kind": "emit"}}}}
    document["stages"]["text"]["import"]["digest"] = found["digest"]
    document["stages"]["total"] = {"kind": "measure", "inputs": {"texts": ["text"]}}
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    run = run_pipeline(tmp_path / "p.yaml", uri)[1]
    assert run.artifact("total").metrics == {"total": 2}
    connect(place).write("text.txt", b"one\nsix\n")
    state = store.state("emit", found["key"])
    assert (state.status, state.problem) == (
        "corrupt",
        "text.txt was overwritten after it was committed",
    )
    assert main(["lineage", "import", "emit", str(tmp_path)]) == 2
    assert "other hosts do not see it" in capsys.readouterr().err


def test_published_results_are_kept_in_the_bucket(uri, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FOUNDRY_STORE", uri)
    tree = lbm_tree(tmp_path / "published", {"big": 3}, n=4)
    for known in (False, True):
        assert main(["eval", "import", str(tree), "--name", "paper", "--json"]) == 0
        (one,) = json.loads(capsys.readouterr().out)["models"]
        assert one["known"] is known
    store = open_store(uri)
    assert store.verify("evaluate", one["key"]).status == "ok"
    assert store.documents.names("work") == []
    shutil.rmtree(tmp_path / "home" / "cache")  # another host
    assert main(["eval", "compare", "big@paper", f"again={tree}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["overall"]["big@paper"]["counted"] == found["overall"]["again"]["counted"]


def test_a_swept_store_keeps_what_is_committed(uri):
    store = open_store(uri)
    build(store, "kept")
    _, folder = attempt(store, "lost", "cd" * 32)
    store.documents.write(f"emit/{KEY}/files-a9-0/orphan", b"12345")
    assert store.sweep({KEY}.__contains__, older_than=-60, apply=False) == 4
    assert store.sweep(lambda key: False, older_than=3600, apply=True) == 0
    assert store.sweep(lambda key: False, older_than=-60, apply=True) == 5 + 4
    assert not folder.exists()
    assert store.verify("emit", KEY).status == "ok"


@pytest.fixture
def requests(monkeypatch):
    """What was asked of the bucket so far."""
    asked = []
    retry = Objects._retry

    def noting(self, what, call):
        asked.append(what)
        return retry(self, what, call)

    monkeypatch.setattr(Objects, "_retry", noting)
    return asked


def test_requests_of_sweeping_and_collecting_do_not_grow_with_what_is_kept(uri, requests):
    """Of 3 artifacts as of 12, where this host has read them: what many artifacts cost is the
    pages of their listing."""
    store, counts = open_store(uri), []
    for number in range(12):
        build(store, f"kept {number}", f"{number:02d}" * 32)
        if number in (2, 11):
            find_garbage(store)
            requests.clear()
            assert len(find_garbage(store).to_delete) + find_garbage(store).kept == number + 1
            assert not [what for what in requests if MANIFEST in what]
            requests.clear()
            assert store.sweep(lambda key: False, older_than=-60, apply=False) == 0
            counts.append(len(requests))
    assert counts[0] == counts[1]
    requests.clear()
    assert find(store, "0707070707").key == "07" * 32
    assert [what for what in requests if what.startswith("list emit")] == ["list emit"]
    store.documents.write("emit/08/artifact.json", b"")
    assert store.artifacts("07") == [("emit", "07" * 32)]


def test_a_commit_that_comes_while_a_sweep_looks_keeps_its_files(uri, monkeypatch):
    store = open_store(uri)
    build(store, "old")
    late, folder = attempt(store, "new")
    late = replace(late, created="2026-01-02T00:00:00+00:00")
    uploaded = S3Store._publish

    def publish(self, artifact, replaced=""):
        """The sweep lists between the uploads and the commit."""
        listed = [*other._listed()]
        monkeypatch.setattr(other, "_listed", lambda: iter(listed))
        return uploaded(self, artifact, replaced)

    other = open_store(uri)
    assert len(other.read_all()) == 1  # from here on it knows the manifest that it lists
    monkeypatch.setattr(S3Store, "_publish", publish)
    assert store.commit(late, folder, replaces=True)
    assert other.sweep(lambda key: False, older_than=-60, apply=True) == 0
    assert store.verify("emit", KEY).status == "ok"
    assert open_store(uri).sweep(lambda key: False, older_than=-60, apply=True) == len("old")


def test_a_replacement_is_one_put_and_readers_of_the_old_files_may_finish(uri):
    store = open_store(uri)
    build(store, "old")
    old = store.read("emit", KEY)
    artifact, folder = attempt(store, "new")
    artifact = replace(artifact, created="2026-01-02T00:00:00+00:00")
    assert store.commit(artifact, folder, replaces=True)
    new = store.read("emit", KEY)
    assert (new.content, new.created) == (artifact.content, artifact.created)
    assert store.verify("emit", KEY).status == "ok"
    folder = f"emit/{KEY}/{old.files_at}/deep"
    assert store.documents.names(folder) == ["text.txt"]
    assert store.sweep(lambda key: False, older_than=-60, apply=True) >= 3
    assert store.documents.names(folder) == []
    assert store.verify("emit", KEY).status == "ok"


def test_what_is_wanted_after_all_is_put_back(uri):
    store = open_store(uri)
    build(store, "kept")
    before = store.read("emit", KEY)
    assert not store.set_aside("emit", KEY, lambda: store.read("emit", KEY) is None)
    assert store.read("emit", KEY) == before
    assert store.verify("emit", KEY).status == "ok"
    assert store.set_aside("emit", KEY, lambda: False)


def test_objects_imported_from_another_place_stay_present(uri, monkeypatch, capsys):
    monkeypatch.setenv("FOUNDRY_STORE", uri)
    store = open_store(uri)
    for name in ("one", "two"):
        place = f"{uri.removesuffix('/store')}/moving/{name}"
        connect(place).write("text.txt", b"bytes")
        assert main(["lineage", "import", "emit", place]) == 0
        ((kind, key),) = store.artifacts()
        assert store.read(kind, key).files_at == place
        capsys.readouterr()
        asked = "select present, removed_reason from artifact"
        assert main(["lineage", "sql", asked, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [{"present": True, "removed_reason": None}]
    assert main(["lineage", "import", "emit", f"{uri}/emit"]) == 2
    assert "foundry lineage tag" in capsys.readouterr().err


@pytest.mark.slow("whole runs over an S3 of our own")
def test_runs_come_out_right_through_a_faulty_network(endpoint, uri, monkeypatch, tmp_path):
    calm = run_words(uri)[1]
    other = use_s3(monkeypatch, endpoint)
    rates = {"error": 0.04, "error_after": 0.03, "reset": 0.03, "reset_after": 0.03}
    rates |= {"truncate": 0.03, "stall_after": 0.005}
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "stormy"))
    with FaultyProxy(endpoint, rates=rates, stall_seconds=3, seed=7) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        actions, stormy = run_words(other)
        assert set(actions.values()) == {"run"}
        for name in actions:
            left, right = calm.artifact(name), stormy.artifact(name)
            assert (left.key, left.content) == (right.key, right.content)
        assert set(run_words(other)[0].values()) == {"reuse"}
        assert sum(count for fault, count in proxy.counts.items() if fault != "ok") > 20
        proxy.calm = True
        for kind, key in stormy.prepared.store.artifacts():
            assert stormy.prepared.store.verify(kind, key).status == "ok"


@pytest.mark.parametrize("happened", [True, False])
def test_an_attempt_whose_commit_is_uncertain_is_closed_by_the_next_run(
    uri, monkeypatch, tmp_path, happened
):
    (tmp_path / "p.yaml").write_text(json.dumps({"stages": {"first": {"kind": "emit"}}}))
    publish = S3Store._publish

    def lose(store, artifact, replaced):
        if happened:
            publish(store, artifact, replaced)
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(S3Store, "_publish", lose)
        with pytest.raises(StoreUnavailable):
            run_pipeline(tmp_path / "p.yaml", uri)
    actions, run = run_pipeline(tmp_path / "p.yaml", uri)
    assert actions == {"first": "reuse" if happened else "run"}
    assert run.prepared.store.verify("emit", run.artifact("first").key).status == "ok"
    states = queries.sql(queries.connect(), "select state from attempt order by attempt")
    wanted = ["committed"] if happened else ["lost", "committed"]
    assert [row["state"] for row in states] == wanted


def test_checkpoints_are_found_from_elsewhere_and_gone_after_the_commit(uri, monkeypatch, tmp_path):
    store = open_store(uri)
    artifact, folder = attempt(store, "hello")
    place = store.checkpoints(KEY, "inputs")
    connect(place).write("step_000000001.json", b"{}")
    other = elsewhere(monkeypatch, tmp_path, uri)
    assert other.checkpoints(KEY, "inputs") == place != other.checkpoints(KEY, "other inputs")
    assert connect(place).names() == ["step_000000001.json"]
    assert store.abandoned(KEY) == ["a1"]
    assert store.commit(artifact, folder)
    assert connect(place).names() == []
