"""States that budgets share, from run to run: found, refused, kept and let go."""

import json
import shutil

import pytest

from flows.cli import main
from flows.runs.engine import PipelineRun
from flows.runs.events import Note
from flows.runs.planning import Request, prepare
from foundry_core.config.overrides import parse_override
from foundry_core.errors import FoundryError
from foundry_core.execution import attempt as attempt_module
from foundry_core.execution.control import ChildResult
from foundry_core.lineage import queries
from foundry_core.pipeline.drift import stage_environment
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.stage import InputArtifact, StageContext
from foundry_core.pipeline.trunks import ground_of
from foundry_core.store import gc
from foundry_core.store.trunks import begin_from, continued, kept_trunks, trunks_in_use
from tests.s3 import s3_server, use_s3
from tests.support import WORDS, install_kinds

BUDGETS = WORDS.with_name("budgets.yaml")
GC = ("lineage", "gc", "--keep-runs", "0", "--grace-hours", "0", "--apply")


@pytest.fixture(autouse=True)
def home(small_home, request, monkeypatch):
    """Stages run in this process, where a test does not ask for `processes`."""
    if "processes" not in request.fixturenames:
        monkeypatch.setattr(attempt_module, "run_child", here)
    return small_home


@pytest.fixture
def processes():
    """Stages run as they do for everybody."""


def here(work, lease, folders):
    """What `run_child` gives, without its process."""
    job = work.job
    stage = stage_kind(job.spec.kind)
    built_on = stage_environment(stage, job.spec, job.resources)
    inputs = {
        slot: {
            label: InputArtifact(
                path=work.store.files_path(one),
                stage=label,
                kind=one.kind,
                key=one.key,
                content=one.content,
            )
            for label, one in named.items()
        }
        for slot, named in job.inputs.items()
    }
    context = StageContext(
        name=job.spec.name,
        key=job.spec.key,
        seed=job.spec.seed,
        recipe=job.spec.recipe,
        resources=job.resources,
        inputs=inputs,
        out=folders.out,
        scratch=folders.scratch,
        progress=lambda *a, **k: None,
        begin=folders.begin,
        ground=ground_of(built_on, job.spec.code_fingerprint),
    )
    try:
        return ChildResult(metrics=stage.run(context), built_on=built_on.to_json())
    except ValueError as error:
        return ChildResult(error=str(error))


def planned(*overrides, **options):
    pairs = tuple(parse_override(text) for text in overrides)
    request = Request(pipeline=str(BUDGETS), overrides=pairs, only=("model",), **options)
    return prepare(request)


def train(*overrides, **options):
    """One run of the model: (its artifact, what the run said)."""
    said = []
    run = PipelineRun(planned(*overrides, **options), observe=said.append)
    run.start()
    for name in run.affected():
        run.stage(name)
    run.finish("succeeded")
    return run.artifact("model"), [event.text for event in said if isinstance(event, Note)]


def weight(artifact):
    return artifact.metrics["weight"]


def straight(*overrides, home, monkeypatch):
    """What the same training comes to in a home that has nothing."""
    with monkeypatch.context() as patch:
        patch.setenv("FOUNDRY_HOME", str(home.with_name("straight")))
        return train(*overrides)[0]


def trunks(store):
    return [key for kind, key in store.artifacts() if kind == "trunk"]


def test_a_larger_budget_goes_on_and_comes_to_the_same(home, processes, monkeypatch):
    small, _ = train()
    row = planned("model.steps=20").plan.stages["model"]
    assert (row.action, row.continues.step, row.continues.key) == ("run", 8, small.key)
    assert row.continues.sentence() == f"continues {small.key[:12]} from step 8 of 20"
    assert row.to_json()["continues"]["key"] == small.key
    large, said = train("model.steps=20")
    assert said == [f"stage model: continued {small.key[:12]} from step 8, as a straight run, to "
                    "the bit"]  # fmt: skip
    alone = straight("model.steps=20", home=home, monkeypatch=monkeypatch)
    assert (large.key, large.content) == (alone.key, alone.content)
    assert (large.metrics["first"], alone.metrics["first"]) == (8, 0)
    assert large.provenance["trunks"] == alone.provenance["trunks"]


def test_the_longest_that_serves_is_taken_and_none_beyond_the_branch():
    short, _ = train("model.steps=6")
    middle, _ = train("model.steps=12")
    assert middle.metrics["first"] == 4
    train("model.steps=30")
    assert planned("model.steps=9").plan.stages["model"].continues.key == short.key
    assert planned("model.steps=25").plan.stages["model"].continues.step == 10
    # Another fall from the same step begins where the other one did, and leaves nothing new.
    store = planned().store
    before = trunks(store)
    other, _ = train("model.steps=13", "model.tail=3")
    assert (other.metrics["first"], other.provenance["trunks"]) == (10, middle.provenance["trunks"])
    assert trunks(store) == before


@pytest.mark.parametrize(
    "change", ["model.rate=0.2", "text.word=two", "text.lines=4", "model.seed=4"]
)
def test_another_recipe_data_or_seed_begins_at_zero(change):
    train()
    assert planned(change, "model.steps=20").plan.stages["model"].continues is None
    assert train(change, "model.steps=20")[0].metrics["first"] == 0


def test_another_declared_version_begins_at_zero(monkeypatch):
    from tests.kinds.grow import Grow

    train()
    monkeypatch.setattr(Grow, "code", "2")
    assert planned("model.steps=20").plan.stages["model"].continues is None


def test_equal_bytes_from_another_upstream_serve():
    train()
    assert train("text.comment=changed", "model.steps=20")[0].metrics["first"] == 8


def test_what_rounds_otherwise_serves_only_where_that_is_asked(monkeypatch):
    small, _ = train()
    row = planned("model.steps=20", "model.resources.cpus=2").plan.stages["model"]
    assert row.continues is None
    (note,) = row.notes
    assert f"{small.key[:12]} after step 8 is not used: built with threads 1, now 2" in note
    close = ("model.steps=20", "model.resources.cpus=2", "model.resources.extend=close")
    assert planned(*close).plan.stages["model"].continues.differs == ("threads 1, now 2",)
    large, said = train(*close)
    assert large.metrics["first"] == 8
    assert said == [
        f"stage model: continued {small.key[:12]} from step 8, not to the bit, with threads 1, "
        "now 2"
    ]
    # What it leaves has steps of both: exact trainings on either leave it alone.
    for cpus in "12":
        continues = planned("model.steps=40", f"model.resources.cpus={cpus}").plan.stages["model"]
        assert (continues.continues.step if continues.continues else 0) == {"1": 8, "2": 0}[cpus]
    assert train("model.steps=20", "model.resources.extend=never", force=("model",))[0].metrics[
        "first"
    ] == 0  # fmt: skip


def test_a_state_of_several_machines_serves_close_trainings_only(monkeypatch):
    """As of a training that was killed and went on with other workers."""
    with monkeypatch.context() as patch:
        patch.setattr(f"{__name__}.ground_of", lambda *a: "0" * 64)
        train()
    row = planned("model.steps=20").plan.stages["model"]
    assert row.continues is None and "built with several machines" in row.notes[0]
    large, said = train("model.steps=20", "model.resources.extend=close")
    assert large.metrics["first"] == 8 and "not to the bit, with several machines" in said[0]


def test_other_code_of_the_same_version_is_not_exact(monkeypatch):
    train()
    from foundry_core.pipeline import spec

    identify = spec.stage_fingerprint

    def changed(stage, recipe, index):
        found = identify(stage, recipe, index)
        return type(found)(**{**vars(found), "digest": "0" * 64}) if stage.kind == "grow" else found

    monkeypatch.setattr(spec, "stage_fingerprint", changed)
    row = planned("model.steps=20").plan.stages["model"]
    assert row.continues is None and "built with other code" in row.notes[0]


def test_forced_work_and_unkept_trunks_begin_at_zero():
    unkept, _ = train("model.resources.keep_trunk=false")
    assert "trunks" not in unkept.provenance
    large, _ = train("model.steps=20")
    assert large.metrics["first"] == 0
    again, _ = train("model.steps=20", force=("model",))
    assert (again.metrics["first"], again.content) == (0, large.content)
    assert again.provenance["trunks"] == large.provenance["trunks"]


def damaged(store, key, how):
    folder = store.path("trunk", key)
    if how == "gone":
        (folder / "state.json").unlink()
    elif how == "truncated":
        (folder / "state.json").write_text("{")
    elif how == "edited":
        text = (folder / "state.json").read_text()
        (folder / "state.json").write_text(text.replace("8", "9", 1))
    else:
        (folder / "artifact.json").write_text('{"torn')


@pytest.mark.parametrize("how", ["gone", "truncated", "edited", "manifest"])
def test_a_damaged_trunk_is_refused_told_of_and_rebuilt(how, home, monkeypatch):
    small, _ = train()
    store = planned().store
    (key,) = trunks(store)
    damaged(store, key, how)
    row = planned("model.steps=20").plan.stages["model"]
    assert row.continues is None and "is not used: it is damaged" in row.notes[0]
    large, said = train("model.steps=20")
    assert large.metrics["first"] == 0
    assert "is not used: it is damaged" in said[0]
    alone = straight("model.steps=20", home=home, monkeypatch=monkeypatch)
    assert large.content == alone.content
    if how != "manifest":
        train(force=("model",))
        assert store.verify("trunk", key).status == "ok"
    assert small.key != large.key


def test_damage_that_no_stat_shows_is_found_at_the_beginning(monkeypatch):
    """As on a disk that loses bits: the plan cannot know."""
    train()
    store = planned().store
    (key,) = trunks(store)
    monkeypatch.setattr("foundry_core.store.verified.VerifiedDigests.check", lambda *a, **k: "")
    damaged(store, key, "edited")
    assert planned("model.steps=20").plan.stages["model"].continues.step == 8
    large, said = train("model.steps=20")
    assert large.metrics["first"] == 0
    assert "state.json has another digest than was committed" in said[0]


def test_a_trunk_of_another_family_under_this_ones_name_is_never_used():
    """Whatever the index says: the state's own identity decides."""
    train("model.rate=0.5")
    store = planned().store
    (name,) = store.documents.names("trunks")
    (document,) = store.documents.names(f"trunks/{name}")
    train("model.steps=11")
    (own,) = {*store.documents.names("trunks")} - {name}
    store.documents.write(f"trunks/{own}/{document}", b"\n")
    assert len(kept_trunks(store, own)) == 2
    # Its step is 8, the family's own is of step 9.
    assert planned("model.steps=10").plan.stages["model"].continues is None
    assert planned("model.steps=20").plan.stages["model"].continues.step == 9


def test_a_failed_training_leaves_no_trunk():
    with pytest.raises(Exception, match="told to fail"):
        train("model.fail=true")
    assert trunks(planned().store) == []


def test_a_trunk_that_cannot_be_kept_fails_no_training(monkeypatch):
    def full(store, artifact, *rest, **options):
        if artifact.kind == "trunk":
            raise OSError(28, "No space left on device")
        return commit(store, artifact, *rest, **options)

    from foundry_core.store.local import LocalStore

    commit = LocalStore.commit
    monkeypatch.setattr(LocalStore, "commit", full)
    model, _ = train()
    assert "trunks" not in model.provenance
    assert trunks(planned().store) == []
    assert train("model.steps=20")[0].metrics["first"] == 0


def test_a_kill_between_the_two_commits_loses_nothing(monkeypatch):
    class Killed(BaseException):
        pass

    enqueue = attempt_module.Attempt.enqueue

    def kill(attempt, artifact):
        if artifact.kind == "grow":
            raise Killed
        return enqueue(attempt, artifact)

    with monkeypatch.context() as patch:
        patch.setattr(attempt_module.Attempt, "enqueue", kill)
        with pytest.raises(Killed):
            train()
    store = planned().store
    assert [kind for kind, _ in store.artifacts()] == ["emit", "trunk"]
    model, _ = train()
    assert model.provenance["trunks"] == trunks(store)
    known = "select count(*) as n from artifact where kind = 'trunk'"
    assert queries.sql(queries.connect(), known) == [{"n": 1}]
    assert main(["lineage", "verify"]) == 0


def test_gc_keeps_trunks_with_their_trainings_and_drops_them_when_told(capsys):
    small, _ = train()
    large, _ = train("model.steps=20")
    store = planned().store
    of = {a.metrics["first"]: a.provenance["trunks"] for a in (small, large)}
    assert trunks(store) == sorted([*of[0], *of[8]])
    found = gc.find_garbage(store, keep_runs=1, grace_hours=0)
    assert {a.key for a in found.to_delete} == {small.key, *of[0]}
    assert gc.find_garbage(store, keep_runs=2, grace_hours=0).to_delete == ()
    dropped = gc.find_garbage(store, keep_runs=2, grace_hours=0, keep_trunks=False).to_delete
    assert sorted(a.key for a in dropped) == trunks(store)
    assert gc.find_garbage(store, keep_runs=2, keep_trunks=False).to_delete == ()  # young
    assert main([*GC[:3], "2", *GC[4:], "--no-trunks"]) == 0
    assert trunks(store) == [] and store.documents.names("trunks") != []
    assert all(not store.documents.names(f"trunks/{n}") for n in store.documents.names("trunks"))
    assert store.state("grow", large.key).status == "ok"
    assert planned("model.steps=40").plan.stages["model"].continues is None
    assert main(["lineage", "verify"]) == 0
    assert main(list(GC)) == 0
    assert store.artifacts() == []
    capsys.readouterr()


def test_gc_leaves_what_a_stage_under_way_goes_on_from(monkeypatch):
    train()
    large = planned("model.steps=20").plan.stages["model"].key
    store = planned().store
    (key,) = trunks(store)
    everything = {"keep_runs": 0, "grace_hours": 0}
    assert key in {a.key for a in gc.find_garbage(store, **everything).to_delete}
    with store.acquire(large):
        begin_from(store, large, key)
        assert trunks_in_use(store, [large]) == {key}
        assert key not in {a.key for a in gc.find_garbage(store, **everything).to_delete}
    # One that says so only after gc has looked is heard when the trunk is out of sight already.
    garbage = gc.find_garbage(store, **everything)
    set_aside = type(store).set_aside

    def late(self, kind, name, wanted=lambda: False):
        if kind != "trunk":
            return set_aside(self, kind, name, wanted)
        with self.acquire(large):
            return set_aside(self, kind, name, wanted)

    monkeypatch.setattr(type(store), "set_aside", late)
    from foundry_core.lineage.events import EventLog

    removed = gc.remove(store, EventLog(store.events_uri), garbage)
    assert key not in {a.key for a in removed}
    assert store.state("trunk", key).status == "ok"


def test_the_lineage_knows_the_edge_and_that_it_is_none_of_identity(capsys):
    small, _ = train()
    large, _ = train("model.steps=20")
    connection = queries.connect()
    assert queries.sql(connection, "select key, from_key, step from continuation") == [
        {"key": large.key, "from_key": small.key, "step": 8}
    ]
    shown = queries.show(queries.connect(), small.key)
    assert shown["continued_by"] == [{"key": large.key, "step": 8}]
    (node,) = queries.trace(queries.connect(), large.key)
    assert (node["continued_from"], node["continued_step"]) == (small.key, 8)
    assert small.key not in {below["key"] for below in node["inputs"]}
    assert main(["lineage", "trace", large.key]) == 0
    assert f"continued {small.key[:12]} from step 8" in " ".join(capsys.readouterr().out.split())
    assert main(["lineage", "rebuild"]) == 0
    rebuilt = queries.sql(queries.connect(), "select count(*) as n from continuation")
    assert rebuilt == [{"n": 1}]


def test_a_home_that_was_moved_finds_its_trunks(home, monkeypatch):
    train()
    shutil.move(home, home.with_name("moved"))
    monkeypatch.setenv("FOUNDRY_HOME", str(home.with_name("moved")))
    assert planned("model.steps=20").plan.stages["model"].continues.step == 8


@pytest.mark.slow("a bucket, two hosts, and a process for each training")
def test_in_a_bucket_another_host_goes_on_and_gc_knows_all(home, monkeypatch, capsys):
    with s3_server() as endpoint:
        monkeypatch.setenv("FOUNDRY_STORE", use_s3(monkeypatch, endpoint))
        small, _ = train()
        monkeypatch.setenv("FOUNDRY_HOME", str(home.with_name("another")))
        assert planned("model.steps=20").plan.stages["model"].continues.key == small.key
        large, _ = train("model.steps=20")
        assert large.metrics["first"] == 8
        store = planned().store
        assert store.documents.names("work") == []
        assert len(trunks(store)) == 2
        assert main(["lineage", "verify"]) == 0
        longest = large.provenance["trunks"][0]
        (state,) = (o.name for o in store._objects.find(f"trunk/{longest}") if "state" in o.name)
        text = store._objects.read(state)
        store._objects.write(state, text.replace(b"18", b"19", 1))
        monkeypatch.setenv("FOUNDRY_HOME", str(home.with_name("third")))
        with monkeypatch.context() as patch:  # as if the listing did not show it
            patch.setattr("foundry_core.store.s3_files.compare", lambda *a, **k: "")
            assert planned("model.steps=40").plan.stages["model"].continues.step == 18
            third, said = train("model.steps=40")
        assert third.metrics["first"] == 0
        assert "after step 18 is not used: it is damaged" in said[0]
        store._objects.write(state, text)
        assert main([*GC[:3], "3", *GC[4:], "--no-trunks"]) == 0
        assert trunks(store) == [] and store.documents.names("trunks") == []
        assert store.state("grow", large.key).status == "ok"
        capsys.readouterr()


def test_the_plan_says_so_on_the_terminal(capsys):
    small, _ = train()
    assert main(["plan", str(BUDGETS), "-o", "model.steps=20", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["stages"]}
    assert rows["model"]["continues"]["key"] == small.key
    assert main(["plan", str(BUDGETS), "-o", "model.steps=20"]) == 0
    assert "continues" in capsys.readouterr().out


def test_no_stage_kind_is_called_like_a_state(tmp_path, monkeypatch):
    text = (WORDS.parent / "emit.py").read_text().replace('kind = "emit"', 'kind = "trunk"')
    install_kinds(tmp_path, monkeypatch, {"trunk": text})
    with pytest.raises(FoundryError, match="a store calls states of trainings 'trunk'"):
        stage_kind("trunk")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("nonsense", ""),
        ({"refused": ["\x1b[2J"]}, r"['\x1b[2J']"),
        ({"key": 7, "step": "x", "differs": [1, None]}, "continued 7 from step x, not to the bit"),
        ({"key": "a\nb", "differs": {"b": 1}}, r"continued a\nb from step None, not to the bit"),
    ],
)
def test_whatever_a_manifest_says_of_it_is_one_printable_line(said, text):
    class Lying:
        provenance = {"continued": said}

    found = continued(Lying())
    assert found.startswith(text) and found.isprintable()
