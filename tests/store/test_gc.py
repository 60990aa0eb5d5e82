"""Names, pins, garbage and imports, through the command line's functions."""

import json
import shutil

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.cli import main
from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.config.overrides import parse_override
from foundry_core.errors import FoundryError
from foundry_core.lineage import queries
from foundry_core.store import gc, references
from foundry_core.store.open import open_store
from tests.support import WORDS


@pytest.fixture(autouse=True)
def home(small_home):
    return small_home


def execute(*overrides, pipeline=WORDS):
    pairs = tuple(parse_override(text) for text in overrides)
    run = PipelineRun(prepare(Request(pipeline=str(pipeline), overrides=pairs)))
    run.start()
    for name in run.affected():
        run.stage(name)
    run.finish("succeeded")
    return run


def lineage(capsys, *arguments):
    """What `foundry lineage ... --json` prints."""
    assert main(["lineage", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def present(store):
    return {key for _, key in store.artifacts()}


def test_names_pins_and_garbage(capsys, home):
    first = execute()
    named = execute("first.word=tres", "first.lines=5")
    lone = execute("second.word=dos")
    store = first.prepared.store
    model = named.artifact("model").key
    lineage(capsys, "tag", model[:10], "base@v1")
    assert lineage(capsys, "tag")[0]["key"] == model
    assert references.find(store, "base@v1").key == model
    assert lineage(capsys, "show", "base@v1")["key"] == model
    lineage(capsys, "pin", first.run_id)

    before = present(store)
    shown = lineage(capsys, "gc", "--keep-runs", "0", "--grace-hours", "0")
    assert present(store) == before
    wanted = {named.artifact("total").key, lone.artifact("second").key, lone.artifact("total").key}
    assert {row["key"] for row in shown["artifacts"]} == wanted
    assert shown["bytes"] > 0
    removed = lineage(capsys, "gc", "--keep-runs", "0", "--grace-hours", "0", "--apply")
    assert {row["key"] for row in removed["artifacts"]} == wanted
    assert present(store) == before - wanted
    for run in (first, named):
        for stage in ("first", "second", "model"):
            assert store.state(run.artifact(stage).kind, run.artifact(stage).key).status == "ok"
    connection = queries.connect()
    gone = queries.sql(connection, "select key from artifact where not present")
    assert gone == []
    connection.close()
    assert lineage(capsys, "sql", "select count(*) as n from artifact where not present") == [
        {"n": len(wanted)}
    ]

    lineage(capsys, "untag", "base@v1")
    lineage(capsys, "unpin", first.run_id)
    lineage(capsys, "gc", "--keep-runs", "0", "--grace-hours", "0", "--apply")
    assert present(store) == set()
    assert not list((home / "store" / "work").glob("*"))


def test_recent_runs_young_artifacts_and_leases_are_kept():
    old = execute()
    execute("first.word=x", "second.word=y")
    store = old.prepared.store
    keys = {old.artifact(name).key for name in ("first", "second", "model", "total")}
    assert gc.find_garbage(store, keep_runs=0).to_delete == ()
    assert gc.find_garbage(store, keep_runs=2, grace_hours=0).to_delete == ()
    to_delete = gc.find_garbage(store, keep_runs=1, grace_hours=0).to_delete
    assert {a.key for a in to_delete} == keys
    with store.acquire(old.artifact("model").key):
        garbage = gc.find_garbage(store, keep_runs=1, grace_hours=0)
        # A run at work protects all of its stages.
        assert garbage.to_delete == ()
    with pytest.raises(FoundryError, match="must be ≥ 0"):
        gc.find_garbage(store, keep_runs=-1)


def test_files_stay_as_long_as_a_link_needs_them():
    old = execute()
    linked = execute("first.comment=changed")
    store = old.prepared.store
    model = linked.artifact("model")
    assert model.linked_to == old.artifact("model").key
    to_delete = gc.find_garbage(store, keep_runs=1, grace_hours=0).to_delete
    assert old.artifact("model").key not in {a.key for a in to_delete}
    references.set_alias(store, "m@1", old.artifact("second"))
    order = gc.find_garbage(store, keep_runs=0, grace_hours=0).to_delete
    assert [bool(a.linked_to) for a in order] == sorted(bool(a.linked_to) for a in order)[::-1]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_is_reached_is_closed_and_nothing_more(data):
    keys = [str(n) for n in range(data.draw(st.integers(1, 8)))]
    needs = {k: data.draw(st.lists(st.sampled_from(keys), max_size=3)) for k in keys}
    roots = set(data.draw(st.lists(st.sampled_from(keys), max_size=3)))
    kept = gc.reach(roots, needs)
    assert roots <= kept
    assert all(set(needs[key]) <= kept for key in kept)
    for key in kept - roots:
        assert any(key in needs[other] for other in kept - {key}) or key in needs[key]
    assert gc.reach(kept, needs) == kept
    smaller = data.draw(st.sets(st.sampled_from(sorted(roots)))) if roots else set()
    assert gc.reach(smaller, needs) <= kept


def folder(tmp_path, text="one\ntwo\n"):
    place = tmp_path / "outside" / "text"
    place.mkdir(parents=True)
    (place / "text.txt").write_text(text)
    return place


def imported(tmp_path, **declared):
    """A pipeline whose first stage is imported."""
    document = yaml.safe_load(WORDS.read_text())
    document["stages"]["first"] = {"import": declared}
    path = tmp_path / "imported.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_an_imported_folder_is_a_stage_wherever_it_lies(capsys, tmp_path):
    place = folder(tmp_path)
    found = lineage(capsys, "import", "emit", str(place), "--name", "text@1")
    store = open_store(str(tmp_path / "home" / "store"))
    assert store.state("emit", found["key"]).status == "ok"
    pipeline = imported(tmp_path, path=str(place), kind="emit", digest=found["digest"])
    run = execute(pipeline=pipeline)
    assert run.artifact("first").key == found["key"]
    assert (store.files_path(run.artifact("total")) / "total.txt").read_text() == "4 lines\n"
    moved = tmp_path / "elsewhere"
    shutil.move(place, moved)
    again = imported(tmp_path, path=str(moved), kind="emit", digest=found["digest"])
    keys = {name: row.key for name, row in run.prepared.plan.stages.items()}
    rows = prepare(Request(pipeline=str(again))).plan.stages
    assert {name: row.key for name, row in rows.items()} == keys
    assert execute("model.steps=6", pipeline=again).artifact("first").files_at == str(moved)
    by_name = imported(tmp_path, alias="text@1", kind="emit", digest=found["digest"])
    assert execute("model.steps=7", pipeline=by_name).artifact("first").key == found["key"]


@pytest.mark.parametrize("harm", ["changed", "added", "deleted"])
def test_a_changed_imported_folder_is_corrupt_and_refused(capsys, tmp_path, harm):
    place = folder(tmp_path)
    found = lineage(capsys, "import", "emit", str(place))
    pipeline = imported(tmp_path, path=str(place), kind="emit", digest=found["digest"])
    if harm == "changed":
        (place / "text.txt").write_text("one\ntwx\n")
    if harm == "added":
        (place / "more.txt").write_text("")
    if harm == "deleted":
        (place / "text.txt").unlink()
        (place / "other.txt").write_text("")
    plan = prepare(Request(pipeline=str(pipeline))).plan
    assert plan.stages["first"].reasons[0].category == "CORRUPT"
    assert str(place) in plan.stages["first"].reasons[0].path
    with pytest.raises(FoundryError, match="digest pins sha256:") as error:
        execute(pipeline=pipeline)
    assert found["digest"] in error.value.message
    assert error.value.message.count("sha256:") == 2


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ({"path": "x", "kind": "emit"}, "pins no digest"),
        ({"kind": "emit", "digest": "sha256:" + "0" * 64}, "names no place"),
        ({"path": "x", "key": "y", "kind": "emit", "digest": "0" * 64}, "names path and key"),
        ({"path": "x", "kind": "emit", "digest": "md5:0"}, "64 hex digits"),
        ({"path": "x", "kind": "emti", "digest": "0" * 64}, "unknown stage kind 'emti'"),
        ({"path": "x", "kind": "measure", "digest": "0" * 64}, "produces Evaluation"),
        ({"paht": "x", "kind": "emit", "digest": "0" * 64}, "paht"),
    ],
)
def test_mistakes_in_an_import_are_named_before_anything_is_read(tmp_path, declared, problem):
    with pytest.raises(FoundryError, match=problem):
        prepare(Request(pipeline=str(imported(tmp_path, **declared))))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["tag", "deadbeef00", "a@1"], "has no artifact 'deadbeef00'"),
        (["untag", "a@1"], "unknown alias 'a@1'"),
        (["pin", "nothing"], "unknown run 'nothing'"),
        (["unpin", "nothing"], "is not pinned"),
        (["import", "emit", "/nowhere"], "'/nowhere' is not a folder"),
        (["import", "emti", "/tmp"], "unknown stage kind 'emti'"),
        (["verify", "deadbeef00"], "has no artifact"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, problem):
    assert main(["lineage", *arguments]) == 2
    assert problem in capsys.readouterr().err


def test_a_name_must_look_like_one(capsys):
    run = execute()
    assert main(["lineage", "tag", run.artifact("first").key, "no-tag"]) == 2
    assert "expected name@tag" in capsys.readouterr().err


def test_a_swept_store_keeps_the_scratch_of_what_may_resume(tmp_path):
    store = open_store(str(tmp_path / "store"))
    _, out, scratch = store.attempt("k" * 64)
    (out / "half").write_bytes(b"x" * 100)
    (scratch / "state").write_bytes(b"y" * 10)
    assert store.sweep(lambda key: True, older_than=-1, apply=True) == 0
    assert store.sweep(lambda key: False, older_than=3600, apply=True) == 0
    assert store.sweep(lambda key: False, older_than=-1, apply=False) == 100
    assert store.sweep(lambda key: False, older_than=-1, apply=True) == 100
    assert not out.exists()
    assert (scratch / "state").exists()
