"""A stage's process on another host: what it reads and writes goes through the bucket. Another host
is another home here."""

from dataclasses import replace

import pytest

from foundry_core.errors import FoundryError
from foundry_core.execution.elsewhere import StoreElsewhere
from foundry_core.identity.code import CodeIndex
from foundry_core.objects import connect
from foundry_core.pipeline.spec import stage_fingerprint
from foundry_core.pipeline.stage import Begin, InputArtifact, StageContext
from foundry_core.pipeline.trunks import LEFT, step_name
from foundry_core.store.manifest import Artifact, content_digest, scan
from foundry_core.store.open import open_store
from tests.kinds.emit import STAGE
from tests.s3 import s3_server, use_s3

KEY, TRUNK, STAGE_KEY = "ab" * 32, "cd" * 32, "ef" * 32


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as url:
        yield url


@pytest.fixture
def host(endpoint, monkeypatch, tmp_path):
    """Goes to a host by its name: the home is another one from then on."""
    uri = use_s3(monkeypatch, endpoint)
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")

    def go(name):
        monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / name))
        return tmp_path / name

    go("here")
    go.uri = uri
    return go


def committed(uri, kind, key, files):
    store = open_store(uri)
    name, folder, _ = store.attempt(key)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    found = scan(folder)
    artifact = Artifact(
        kind=kind,
        key=key,
        content=content_digest(found),
        input_content_key=key,
        code="",
        code_fingerprint="",
        recipe={},
        seed=0,
        sources={},
        inputs=(),
        files=found,
        metrics={},
        attempt=name,
        run_id="r",
        created="2026-01-01T00:00:00.000000Z",
        seconds=1.0,
    )
    assert store.commit(artifact, folder)
    return artifact


@pytest.fixture
def ctx(host, tmp_path):
    """Of a stage at work here, whose input is in the bucket."""
    made = committed(host.uri, "emit", KEY, {"text.txt": "bytes", "deep/more.txt": "more"})
    recipe = STAGE.Recipe.model_validate({"word": "x"})
    code = stage_fingerprint(STAGE, recipe, CodeIndex()).digest
    there = InputArtifact(
        path=tmp_path / "here" / "input", stage="first", kind="emit", key=KEY, content=made.content
    )
    for folder in ("out", "scratch"):
        (tmp_path / "here" / folder).mkdir()
    return StageContext(
        name="second",
        key=STAGE_KEY,
        seed=0,
        recipe=recipe,
        resources=STAGE.Resources(),
        inputs={"data": {"first": there}},
        out=tmp_path / "here" / "out",
        scratch=tmp_path / "here" / "scratch",
        progress=lambda *a, **k: None,
        checkpoints=f"{host.uri}/work/{STAGE_KEY}/checkpoints-0123",
        elsewhere=StoreElsewhere(store=host.uri, kind="emit", code=code),
    )


def test_a_rank_there_has_its_inputs_and_folders_on_that_host(host, ctx):
    home = host("there")
    with ctx.elsewhere.context(ctx, 0) as first, ctx.elsewhere.context(ctx, 1) as second:
        read = first.inputs["data"]["first"].path
        assert (read / "text.txt").read_text() == "bytes"
        assert (read / "deep" / "more.txt").read_text() == "more"
        assert first.scratch == second.scratch
        assert first.out != second.out
        for folder in (read, first.out, second.out, first.scratch):
            assert folder.is_dir() and folder.is_relative_to(home)
    assert not first.scratch.exists()
    assert (first.key, first.checkpoints) == (ctx.key, ctx.checkpoints)


def test_what_failed_there_keeps_its_scratch_and_not_its_output(host, ctx):
    host("there")
    with pytest.raises(OSError, match="died"), ctx.elsewhere.context(ctx, 0) as local:
        (local.out / "half").write_text("")
        (local.scratch / "log").write_text("kept")
        raise OSError("died")
    with ctx.elsewhere.context(ctx, 0) as again:
        assert not any(again.out.iterdir())
        assert (again.scratch / "log").read_text() == "kept"
    # What it was begun from is another: nothing of the scratch may be taken up.
    other = replace(ctx, checkpoints=ctx.checkpoints.replace("0123", "4567"))
    with ctx.elsewhere.context(other, 0) as fresh:
        assert not (fresh.scratch / "log").exists()


def given_there(host, ctx):
    host("there")
    with ctx.elsewhere.context(ctx, 0) as local:
        (local.out / "records").mkdir()
        (local.out / "records" / "metrics.jsonl").write_text("{}\n")
        (local.out / "model.safetensors").write_bytes(b"weights" * 1000)
        trunk = local.scratch / LEFT / step_name(8)
        trunk.mkdir(parents=True)
        (trunk / "state.json").write_text("{}")
        receipt = local.elsewhere.give(local)
    host("here")
    return receipt


def test_output_and_trunk_come_here_and_nothing_of_them_stays_in_between(host, ctx):
    receipt = given_there(host, ctx)
    ctx.elsewhere.take(ctx, receipt)
    assert (ctx.out / "model.safetensors").read_bytes() == b"weights" * 1000
    assert (ctx.out / "records" / "metrics.jsonl").read_text() == "{}\n"
    assert (ctx.scratch / LEFT / step_name(8) / "state.json").read_text() == "{}"
    assert connect(host.uri).find(f"work/{STAGE_KEY}") == []


def test_other_bytes_than_were_sent_are_refused(host, ctx):
    receipt = given_there(host, ctx)
    connect(receipt.uri).write("out/model.safetensors", b"weights" * 999 + b"WEIGHTS")
    with pytest.raises(FoundryError, match=r"out/model.safetensors: the store gave other bytes"):
        ctx.elsewhere.take(ctx, receipt)


def test_an_input_that_was_replaced_meanwhile_is_refused(host, ctx):
    (only,) = ctx.inputs["data"].values()
    stale = replace(ctx, inputs={"data": {"first": replace(only, content="0" * 64)}})
    host("there")
    words = "its input emit/abababababab was replaced in s3://"
    with pytest.raises(FoundryError, match=words), ctx.elsewhere.context(stale, 0):
        pass


def test_a_host_with_other_code_is_refused(host, ctx):
    host("there")
    other = replace(ctx.elsewhere, code="0" * 64)
    words = "has other code of stage kind 'emit'"
    with pytest.raises(FoundryError, match=words) as caught, other.context(ctx, 0):
        pass
    assert "on every node" in caught.value.hint


def test_the_state_of_a_smaller_budget_is_there_too(host, ctx):
    committed(host.uri, "trunk", TRUNK, {"state.json": "{}", "shard_00000.safetensors": "x"})
    begin = Begin(path=ctx.scratch / "begin", step=8, key=KEY, trunk=TRUNK)
    home = host("there")
    with ctx.elsewhere.context(replace(ctx, begin=begin), 0) as local:
        assert local.begin is not None and local.begin.path.is_relative_to(home)
        state = local.begin.path / step_name(8)
        assert (state / "shard_00000.safetensors").read_text() == "x"
    # One that is gone leaves an empty place: training says that it does without.
    gone = replace(begin, trunk="12" * 32)
    with ctx.elsewhere.context(replace(ctx, begin=gone), 0) as local:
        assert local.begin is not None and not local.begin.path.exists()
