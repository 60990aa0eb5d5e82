"""Runs of the small pipeline through store, child processes, lineage and (once) Prefect."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.reports.run_report import gather
from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.config.overrides import parse_override
from foundry_core.lineage import queries
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index
from tests.support import WORDS


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    return tmp_path / "home"


def prepared(*overrides, **options):
    pairs = tuple(parse_override(text) for text in overrides)
    return prepare(Request(pipeline=str(WORDS), overrides=pairs, **options))


def execute(*overrides, **options):
    """One run, stage after stage, without Prefect; {stage: action}."""
    run = PipelineRun(prepared(*overrides, **options))
    run.start()
    for name in run.affected():
        run.stage(name)
    result = run.finish("succeeded")
    return {stage["name"]: stage["action"] for stage in result["stages"]}, run


def test_first_run_builds_second_reuses_and_a_change_cascades():
    everything = dict.fromkeys(("first", "second", "model", "total"), "run")
    assert execute()[0] == everything
    assert set(execute()[0].values()) == {"reuse"}
    changed = execute("second.word=dos")[0]
    assert changed == {"first": "reuse", "model": "reuse", "second": "run", "total": "run"}
    assert set(execute()[0].values()) == {"reuse"}


def test_the_report_says_what_happened_and_how_to_ask_again():
    """By the file that the pipeline was, with what was changed in it."""
    _, run = execute("second.word=two words")
    report = gather(run.run_id)
    assert [row[3:5] for row in report.stages] == [["built", "for the first time"]] * 4
    assert report.commands == [f"foundry plan {WORDS} -o 'second.word=two words'"]
    _, run = execute("second.word=dos")
    rows = {row[0]: row[3:5] for row in gather(run.run_id).stages}
    assert rows["first"] == ["reused", ""]
    assert rows["second"] == ["built", "second.word: two words → dos"]


def test_equal_content_cuts_the_cascade_off():
    _, before = execute()
    actions, run = execute("first.comment=changed")
    assert actions == {"first": "run", "second": "reuse", "model": "reuse", "total": "reuse"}
    assert run.outcomes["model"].how == "content"
    assert run.artifact("model").linked_to == before.artifact("model").key
    assert set(execute("first.comment=changed")[0].values()) == {"reuse"}


def test_forced_stage_runs_again_and_equal_bytes_stop_there():
    execute()
    actions = execute(force=("first",))[0]
    assert actions == {"first": "run", "second": "reuse", "model": "reuse", "total": "reuse"}


def test_a_flipped_byte_is_found_named_and_mended():
    _, run = execute()
    path = run.prepared.store.files_path(run.artifact("first")) / "text.txt"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))
    row = prepared().plan.stages["first"]
    # Nothing that runs needs `first`: the plan says what is wrong without rebuilding it.
    assert row.action == "reuse"
    assert row.how == "unneeded"
    planned = prepared("model.steps=6").plan
    assert planned.stages["first"].reasons[0].category == "CORRUPT"
    assert "text.txt has another digest" in planned.stages["first"].reasons[0].path
    assert execute("model.steps=6")[0]["first"] == "run"
    assert path.read_text() == "one\none\none\n"


def test_a_failing_stage_is_recorded_and_explained():
    run = PipelineRun(prepared("first.fail=true"))
    run.start()
    with pytest.raises(Exception, match="told to fail"):
        run.stage("first")
    assert "told to fail" in (run.folder / "logs" / "first.log").read_text()
    reason = prepared("first.fail=true").plan.stages["first"].reasons[0]
    assert reason.category == "FAILED"
    assert "told to fail" in reason.path


def test_a_failure_is_told_in_lines_for_people_with_the_log_to_read():
    done = cli("run", WORDS, "-o", "first.fail=true")
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert "Traceback" not in told
    (log,) = set(re.findall(r"its log: (\S+first\.log)", done.stdout.replace("\n", "")))
    assert "told to fail" in Path(log).read_text()


def test_lineage_traces_and_rebuilds_to_the_same_rows(home):
    _, run = execute()
    connection = queries.connect()
    (root,) = queries.trace(connection, run.artifact("total").key)
    found = json.dumps(root)
    for name in ("first", "second"):
        assert run.artifact(name).files[0].sha256 in found
    tables = ("artifact", "file", "run_stage", "stage_input", "metric")
    ask = {name: f"select * from {name} order by all" for name in tables}
    before = {name: queries.sql(connection, query) for name, query in ask.items()}
    assert all(before.values())
    connection.close()
    (home / "lineage.duckdb").unlink()
    Index(home / "lineage.duckdb", EventLog(run.prepared.store.events_uri)).rebuild()
    connection = queries.connect()
    assert {name: queries.sql(connection, query) for name, query in ask.items()} == before


def test_rebuild_tells_what_a_killed_writer_left_untold(home):
    _, run = execute()
    key = run.artifact("total").key
    events = (home / "store" / "events").glob("2*/*.json")
    lost = [p for p in events if '"artifact_committed"' in p.read_text() and key in p.read_text()]
    assert len(lost) == 1
    lost[0].unlink()
    (home / "lineage.duckdb").unlink()
    done = cli("lineage", "rebuild", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["artifacts without an event, now told"] == 1
    connection = queries.connect()
    assert queries.show(connection, key)["kind"] == "measure"


CLI = [sys.executable, "-m", "flows.cli"]


def cli(*arguments, **options):
    return subprocess.run(
        [*CLI, *arguments], capture_output=True, text=True, timeout=240, **options
    )


def test_kill_9_in_training_then_resume_from_the_checkpoint(home):
    settings = ("-o", "model.steps=40", "-o", "model.seconds=8")
    process = subprocess.Popen(
        [*CLI, "run", str(WORDS), *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    scratch = home / "store" / "work"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        states = list(scratch.glob("*/scratch/state.json"))
        if states and json.loads(states[0].read_text())["step"] >= 5:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.3)
    stopped_at = json.loads(states[0].read_text())["step"]
    time.sleep(0.5)
    assert json.loads(states[0].read_text())["step"] == stopped_at, "the child outlived its parent"
    assert stopped_at < 40
    actions, run = execute("model.steps=40", "model.seconds=8")
    assert actions["first"] == "reuse"
    folder = run.prepared.store.files_path(run.artifact("model"))
    assert int((folder / "records" / "resumed.txt").read_text()) >= stopped_at
    weight = 12.0 + 3
    for _ in range(40):
        weight *= 1 - 0.1
    assert (folder / "weight.txt").read_text() == repr(weight)


def test_prefect_run_and_cached_run_from_the_command_line(home):
    first = cli("run", "--prefect", str(WORDS), "--json")
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert result["status"] == "succeeded"
    assert {stage["action"] for stage in result["stages"]} == {"run"}
    # What still ran of Prefect at the interpreter's end made nanobind report leaks of DuckDB's.
    assert first.stderr == ""
    second = cli("run", "--prefect", str(WORDS), "--json")
    assert {stage["action"] for stage in json.loads(second.stdout)["stages"]} == {"reuse"}
    failed = cli("run", "--prefect", str(WORDS), "-o", "first.fail=true", "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["status"] == "failed"
    assert failed.stderr == ""


def test_planning_imports_nothing_heavy():
    code = (
        "import sys; from flows.cli import main; failed = main(sys.argv[1:]);"
        "bad = {'torch', 'ray', 'prefect', 'transformers', 'mujoco', 'duckdb'} & set(sys.modules);"
        "sys.exit(f'imported {bad}' if bad else failed)"
    )
    for arguments in (["plan", str(WORDS), "--json"], ["plan", "demo", "--json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plan", "dmeo"), ("unknown pipeline 'dmeo'", "'demo'")),
        (("plan", str(WORDS), "-o", "first.wrod=x"), ("'first.wrod'", "'word'")),
        (("plan", str(WORDS), "-o", "frist.word=x"), ("'frist'", "'first'")),
        (("plan", str(WORDS), "-o", "model.inputs.text=total"), ("produces Evaluation",)),
        (("run", str(WORDS), "--only", "modle"), ("'modle'", "'model'")),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, words):
    done = cli(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr


def test_an_unusable_store_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = cli("plan", str(WORDS), env={**os.environ, "FOUNDRY_STORE": str(blocked / "store")})
    assert done.returncode == 2
    assert "is not usable" in done.stderr
    assert Path(blocked).read_text() == ""
