"""Names and run ids that people type: no place elsewhere, one line for every mistake."""

import json

import pytest

from flows.cli import main
from foundry_core.store.catalog import load_baseline
from foundry_core.store.manifest import Artifact, content_digest
from foundry_core.store.open import open_store
from tests.runs import run

LONG = "n" * 300


@pytest.fixture(autouse=True)
def home(small_home):
    return small_home


def test_untag_touches_names_only(capsys):
    _, done = run()
    store, total = done.prepared.store, done.artifact("total")
    for name in (f"../{total.kind}/{total.key}/artifact.json", f"../runs/{done.run_id}.json"):
        assert main(["lineage", "untag", name]) == 2
        assert main(["lineage", "pin", name.removesuffix(".json")]) == 2
        assert main(["lineage", "unpin", name]) == 2
    assert store.state(total.kind, total.key).status == "ok"
    assert capsys.readouterr().err.count("expected name@tag") == 2
    assert store.documents.names("pins") == []


@pytest.mark.parametrize("name", ["", LONG, f"{LONG}@1", "..", "a/b@1", "a@\0"])
@pytest.mark.parametrize("action", ["untag", "pin", "unpin", "show", "tag", "verify"])
def test_what_is_no_name_is_one_line(home, capsys, action, name):
    for folder in ("aliases", "pins", "runs"):
        (home / "store" / folder).mkdir(parents=True)
    arguments = [name, "a@1"] if action == "tag" else [name]
    assert main(["lineage", action, *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_long_name_is_refused_and_a_stray_file_is_none(home, capsys):
    _, done = run()
    key = done.artifact("total").key
    assert main(["lineage", "tag", key, f"{LONG}@1"]) == 2
    assert "220 bytes" in capsys.readouterr().err
    (home / "store" / "aliases").mkdir(exist_ok=True)
    (home / "store" / "aliases" / "a@1~").write_text("an editor's")
    assert main(["lineage", "tag"]) == 0


def test_an_unknown_store_has_no_names(tmp_path):
    assert open_store(str(tmp_path / "new")).documents.names("aliases") == []


def test_what_an_earlier_version_wrote_is_read(tmp_path):
    """Its keys mean nothing to a plan, but it is not in the way of one, nor of gc."""
    store = open_store(str(tmp_path))
    old = {"name": "a", "kind": "emit", "key": "k", "code": "1", "closure": "c", "recipe": {}}
    store.documents.write("runs/r1.json", json.dumps({"stages": {"a": old}}).encode())
    store.documents.write("runs/latest-words", b"r1")
    assert load_baseline(store, "words") is None
    manifest = dict.fromkeys(("kind", "code", "attempt", "run_id"), "x")
    manifest |= {"recipe": {}, "seed": 0, "sources": {}, "inputs": [], "files": [], "metrics": {}}
    manifest |= {"key": "a" * 64, "content": content_digest(()), "created": "2026-01-01T00:00:00"}
    manifest |= {"seconds": 0.0, "closure": "c", "content_key": "b" * 64}
    artifact = Artifact.from_json(manifest)
    assert (artifact.code_fingerprint, artifact.input_content_key) == ("c", "b" * 64)
