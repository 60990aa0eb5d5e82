"""A bucket that somebody else filled, from end to end (moto over HTTP)."""

import json

import pytest
import yaml

from flows.cli import main
from foundry_core.objects import connect
from foundry_core.store.open import open_store
from tests.runs import prepared, run
from tests.s3 import s3_server, use_s3


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as url:
        yield url


@pytest.fixture
def uri(endpoint, monkeypatch, small_home):
    uri = use_s3(monkeypatch, endpoint)
    monkeypatch.setenv("FOUNDRY_STORE", uri)
    return uri


class Listing:
    """Every listing of a prefix shows one object more."""

    def __init__(self, monkeypatch, name):
        from foundry_core.objects import Objects

        find = Objects.find

        def found(objects, folder=""):
            listed = find(objects, folder)
            if objects.root.endswith("models/base"):
                return [type(listed[0])(**(vars(listed[0]) | {"name": name})), *listed]
            return listed

        monkeypatch.setattr(Objects, "find", found)


@pytest.mark.parametrize("name", ["../../x", "a/../../../x", "/etc/x", "a//b", "a\nb"])
def test_an_object_whose_name_leads_out_is_refused_before_it_is_read(
    uri, monkeypatch, capsys, small_home, name
):
    place = f"{uri.rpartition('/')[0]}/models/base"
    connect(place).write("weights", b"1")
    Listing(monkeypatch, name)
    assert main(["lineage", "import", "emit", place]) == 2
    said = capsys.readouterr().err
    assert "is no path of an artifact's file" in said and said.count("\n") == 1
    assert open_store(uri).artifacts() == []


def test_a_forged_manifest_writes_nothing_outside_of_the_cache(uri, small_home, tmp_path, capsys):
    """An import of a key of this store whose manifest names a path out of it."""
    _, done = run()
    first = done.artifact("first")
    name = f"emit/{first.key}/artifact.json"
    document = json.loads(connect(uri).read(name))
    document["files"][-1]["path"] = "../../../escaped"
    connect(uri).write(name, json.dumps(document).encode())
    pin = {"key": first.key, "kind": "emit", "digest": f"sha256:{first.content}"}
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(yaml.safe_dump({"name": "p", "stages": {"a": {"import": pin}}}))
    assert main(["lineage", "verify", first.key]) == 2
    assert main(["run", str(pipeline)]) != 0
    assert "cannot be read" in capsys.readouterr().err
    assert not list(tmp_path.rglob("escaped"))
    (reason,) = prepared("model.rate=0.5").plan.stages["first"].reasons
    assert reason.category == "CORRUPT"
    assert run("model.rate=0.5")[0]["first"] == "run"


def test_verify_of_a_bucket_compares_commits(uri, capsys):
    run()
    assert main(["lineage", "verify"]) == 0
    assert "4 artifacts read, 0 corrupt" in capsys.readouterr().out
