"""Shards on S3's API (moto over HTTP), behind a proxy that fails as told."""

import http.client
import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pytest
import torch

from flows.cli import main
from foundry_core.data.inspection.validate import validate
from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import (
    DataConfig,
    LoaderResources,
    RobotData,
    TextData,
    UnreadableConfig,
)
from foundry_core.data.loading.loader import Loader
from foundry_core.data.loading.remote import RemoteUnreachable
from foundry_core.data.loading.shards import CheckedShards, UnreadableSample
from foundry_core.errors import FoundryError
from foundry_core.retry import Retry
from tests.synthetic import INPUTS

ROBOT = DataConfig(robot=RobotData(batch_size=8, inputs=INPUTS))
SKIP = UnreadableConfig(policy="skip", max_skips=10_000)


class Faults:
    """What happens to requests for objects whose name matches: `failures` maps a name to how many
    of its next requests fail; `how` is "503" or "truncate"."""

    def __init__(self) -> None:
        self.how, self.failures = "503", Counter[str]()
        self.asked = Counter[str]()

    def due(self, name: str) -> bool:
        self.asked[name] += 1
        self.failures[name] -= 1
        return self.failures[name] >= 0


def proxy(target: tuple[str, int], faults: Faults) -> ThreadingHTTPServer:
    class Forward(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            fails = self.command == "GET" and faults.due(name)
            if fails and faults.how == "503":
                self._answer(503, b"<Error><Code>SlowDown</Code></Error>", {})
                return
            upstream = http.client.HTTPConnection(*target)
            upstream.request(self.command, self.path, headers=dict(self.headers))
            answer = upstream.getresponse()
            body = answer.read()
            if fails:
                body = body[: len(body) // 2]
            headers = {k: v for k, v in answer.getheaders() if k.lower() in ("etag", "x-amz-error")}
            if self.command == "HEAD":
                headers["Content-Length"] = answer.getheader("Content-Length", "0")
            self._answer(answer.status, body, headers)
            upstream.close()

        do_HEAD = do_GET

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def s3(datasets: dict) -> Iterator[tuple[tuple[str, int], Faults]]:
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    filesystem = s3fs.S3FileSystem(
        key="test",
        secret="test",
        endpoint_url=f"http://{host}:{port}",
        skip_instance_cache=True,
    )
    filesystem.mkdir("data")
    for label in ("lever", "door"):
        filesystem.put(str(datasets["robot"][label]), f"data/{label}", recursive=True)
    filesystem.put(str(datasets["text"]["web"]), "data/web", recursive=True)
    faults = Faults()
    server = proxy((host, port), faults)
    yield server.server_address, faults
    server.shutdown()
    moto.stop()


@pytest.fixture
def faults(
    s3: tuple[tuple[str, int], Faults], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Faults:
    (host, port), faults = s3
    faults.__init__()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("foundry_core.data.loading.remote.RETRY", Retry(attempts=2, pause=0.01))
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    return faults


@pytest.fixture
def make(tokenizer, normalizer) -> Callable[..., Loader]:
    def build(config: DataConfig, sources: dict, workers: int = 0) -> Loader:
        return build_loader(
            config,
            sources,
            seed=3,
            tokenizer=tokenizer,
            tokens_per_image=2,
            normalizer=normalizer,
            resources=LoaderResources(workers=workers, prefetch=2),
        )

    return build


def same(one: dict, two: dict) -> bool:
    return all(torch.equal(one[m][k], two[m][k]) for m in two for k in two[m])


def test_a_mix_on_s3_makes_the_batches_of_the_local_one(
    make: Callable[..., Loader], datasets: dict, faults: Faults
) -> None:
    config = DataConfig(
        text=TextData(batch_size=4), robot=RobotData(batch_size=8, inputs=INPUTS, weights=None)
    )
    local = {"text": {"web": datasets["text"]["web"]}, "robot": datasets["robot"]}
    remote = {
        "text": {"web": "s3://data/web"},
        "robot": {label: f"s3://data/{label}" for label in datasets["robot"]},
    }
    expected = list(islice(make(config, local).batches(), 12))
    loader = make(config, remote, workers=2)
    batches = loader.batches()
    assert all(same(next(batches), batch) for batch in expected)
    batches.close()
    tars = {name: n for name, n in faults.asked.items() if name.endswith(".tar")}
    # three datasets share shard names; two workers share each fetched file
    names = [p.name for d in ("lever", "door") for p in datasets["robot"][d].glob("*.tar")]
    names += [p.name for p in datasets["text"]["web"].glob("*.tar")]
    assert tars == Counter(names)
    fetched = sum(n for name, n in loader.report().items() if name.endswith("shards_fetched"))
    assert 1 <= fetched <= len(names)


@pytest.mark.parametrize("how", ["503", "truncate"])
def test_one_failure_in_the_middle_is_healed_by_fetching_again(
    make: Callable[..., Loader], datasets: dict, faults: Faults, how: str
) -> None:
    label = {"robot": {"lever": datasets["robot"]["lever"]}}
    expected = list(islice(make(ROBOT, label).batches(), 10))
    faults.how, faults.failures["shard_000001.tar"] = how, 1
    loader = make(ROBOT, {"robot": {"lever": "s3://data/lever"}})
    assert all(same(a, b) for a, b in zip(loader.batches(), expected, strict=False))
    assert faults.asked["shard_000001.tar"] == 2
    assert loader.report()["robot.lever.shards_fetched"] == (4 if how == "truncate" else 3)


def test_a_shard_that_stays_truncated_is_named_or_skipped_alike_everywhere(
    make: Callable[..., Loader], faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"robot": {"lever": "s3://data/lever"}}
    faults.how, faults.failures["shard_000001.tar"] = "truncate", 10**6
    where = r"shard_000001.tar' of 's3://data/lever': \d+ bytes .*fetched again once"
    with pytest.raises(UnreadableSample, match=where):
        list(islice(make(ROBOT, source).batches(), 10))
    assert faults.asked["shard_000001.tar"] == 2
    runs, skips = [], set()
    for workers in (0, 2):
        monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / f"cache{workers}"))
        loader = make(ROBOT.model_copy(update={"unreadable": SKIP}), source, workers)
        batches = loader.batches()
        runs.append(list(islice(batches, 6)))
        batches.close()
        skips.add(loader.report()["robot.lever.skipped"])
    assert all(same(a, b) for a, b in zip(*runs, strict=True))
    assert len(skips) == 1 and skips.pop() > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_service_that_is_down_stops_the_run_and_is_never_skipped(
    make: Callable[..., Loader], faults: Faults, workers: int
) -> None:
    config = ROBOT.model_copy(update={"unreadable": SKIP})
    loader = make(config, {"robot": {"lever": "s3://data/lever"}}, workers)
    faults.failures["shard_000001.tar"] = 10**6
    batches = loader.batches()
    where = r"s3://data/lever/shard_000001.tar cannot be fetched \(2 attempts\).*SlowDown"
    with pytest.raises(RemoteUnreachable, match=where):
        list(islice(batches, 10))
    batches.close()
    asked = faults.asked["shard_000001.tar"]  # a worker goes on to the batches ahead
    assert asked == 2 if workers == 0 else asked % 2 == 0


def test_a_damaged_index_is_made_anew_from_the_shard(faults: Faults, datasets: dict) -> None:
    faults.how, faults.failures["shards.index"] = "truncate", 10**6
    shards = CheckedShards("s3://data/web")
    assert bytes(shards.member(3, "tokens.npy")) == bytes(
        CheckedShards(datasets["text"]["web"]).member(3, "tokens.npy")
    )


def test_the_data_commands_take_addresses(
    faults: Faults, capsys: pytest.CaptureFixture[str], datasets: dict
) -> None:
    def run(*words: str, code: int = 0) -> dict:
        assert main(["data", *words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    found = run("preview", "--mix", "s3://data/lever@1", "s3://data/door@1")
    counts = {k: v["samples"] for k, v in found["modalities"]["robot"]["datasets"].items()}
    assert counts == {"lever": 8, "door": 8}
    local = run("preview", "--mix", *(f"{datasets['robot'][k]}@1" for k in ("lever", "door")))
    assert found["modalities"] == local["modalities"]
    assert run("inspect", "s3://data/web")["samples"] == 50
    assert run("validate", "s3://data/web")["findings"] == []
    assert run("stats", "s3://data/door") == run("stats", str(datasets["robot"]["door"]))


def test_validation_of_an_address_says_which_shard_is_broken(faults: Faults) -> None:
    faults.how, faults.failures["shard_000002.tar"] = "truncate", 10**6
    report = validate("s3://data/web")
    (finding,) = report["findings"]
    assert finding["where"] == "shard shard_000002" and "truncated?" in finding["problem"]
    assert faults.asked["shard_000002.tar"] == 2
    assert 0 < report["decoded"] < report["samples"]


def test_what_is_not_there_is_named(
    faults: Faults, datasets: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FoundryError, match=r"'s3://data/nothing' holds no manifest.jsonl"):
        CheckedShards("s3://data/nothing")
    folder = tmp_path / "foreign"
    shutil.copytree(datasets["text"]["web"], folder)
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    for line in lines:
        del line["sha256"]
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(FoundryError, match="states no digests"):
        CheckedShards(f"file://{folder}")
    shutil.rmtree(folder)
    shutil.copytree(datasets["text"]["web"], folder)
    (folder / "shard_000002.tar").unlink()
    shards = CheckedShards(f"file://{folder}")
    with pytest.raises(UnreadableSample, match=re.escape("shard_000002.tar") + ".*missing"):
        shards.member(40, "tokens.npy")
