"""What a stage prints reaches its log without the secrets of the environment."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.execution import logs
from foundry_core.execution.job import StageFailed
from foundry_core.execution.logs import masked_log
from tests.support import install_kinds, stage_alone

SECRET = "Zq9-wholly-unlikely-value"
ENVIRONMENT = {"LAB_API_KEY": SECRET, "LAB_NAME": "harmless"}


def printed(path, *pieces):
    with masked_log(path, ENVIRONMENT) as log:
        for piece in pieces:
            os.write(log, piece)
    return path.read_bytes()


def test_values_urls_and_shapes_are_masked_and_nothing_else(tmp_path):
    text = (
        f"reads with {SECRET}, {SECRET}\n"
        "from https://me:hunter2@host/x and s3://bucket/harmless\n"
        "hf_abcdefghijklmnopqrstuvwxyz0123\n"
        "token: 12, loss 0.5\n"
    )
    assert printed(tmp_path / "log", text.encode()).decode() == (
        "reads with ***, ***\n"
        "from https://***@host/x and s3://bucket/harmless\n"
        "***\n"
        "token: 12, loss 0.5\n"
    )


def test_a_secret_in_two_writes_is_one(tmp_path):
    half = len(SECRET) // 2
    pieces = (b"a\rb ", SECRET[:half].encode(), SECRET[half:].encode(), b" c\nend")
    assert printed(tmp_path / "log", *pieces) == b"a\rb *** c\nend"


def test_bytes_that_are_no_text_stay(tmp_path):
    data = bytes(range(256)) + b"\n"
    assert printed(tmp_path / "log", data) == data


def test_a_line_is_there_before_the_process_ends(tmp_path):
    with masked_log(tmp_path / "log", ENVIRONMENT) as log:
        os.write(log, b"first\nhalf")
        deadline = time.monotonic() + 10
        while (tmp_path / "log").read_bytes() != b"first\n":
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert (tmp_path / "log").read_bytes() == b"first\nhalf"


def test_attempts_are_appended(tmp_path):
    printed(tmp_path / "log", b"one\n")
    assert printed(tmp_path / "log", b"two\n") == b"one\ntwo\n"


def test_a_line_without_end_takes_no_memory_without_end(tmp_path):
    assert printed(tmp_path / "log", *[b"x" * 2**15] * 100) == b"x" * (2**15 * 100)


def test_a_process_that_keeps_the_log_open_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_PATIENCE_SECONDS", 0.2)
    with masked_log(tmp_path / "log", ENVIRONMENT) as log:
        held = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=log
        )
        os.write(log, b"said\n")
    assert (tmp_path / "log").read_bytes() == b"said\n"
    held.communicate(b"\n", timeout=20)


def test_a_log_without_room_fails_no_stage():
    with masked_log(Path("/dev/full"), ENVIRONMENT) as log:
        for _ in range(10):
            os.write(log, b"x" * 2**16)


KIND = """
import os
from foundry_core.pipeline import stage

class Recipe(stage.Recipe):
    fails: bool = False

class Talk(stage.Stage):
    kind = "talk"
    output = stage.ArtifactType.TEXT
    Recipe = Recipe

    @staticmethod
    def run(ctx):
        print("key", os.environ["LAB_API_KEY"], flush=True)
        os.system("echo from a shell: $LAB_API_KEY")
        (ctx.out / "x.txt").write_text("x")
        if ctx.recipe.fails:
            raise RuntimeError("refused: " + os.environ["LAB_API_KEY"])
        return {}

STAGE = Talk
"""


@pytest.mark.parametrize("fails", [False, True])
def test_no_secret_of_the_environment_lies_in_the_home_after_a_run(
    small_home, tmp_path, monkeypatch, fails
):
    install_kinds(tmp_path, monkeypatch, {"talk": KIND})
    monkeypatch.setenv("LAB_API_KEY", SECRET)
    run = PipelineRun(prepare(Request(pipeline=str(stage_alone(tmp_path, "talk", fails=fails)))))
    run.start()
    if fails:
        with pytest.raises(StageFailed):
            run.stage("talk")
    else:
        run.stage("talk")
    run.finish("failed" if fails else "succeeded", f"refused: {SECRET}" if fails else "")
    log = (run.folder / "logs" / "talk.log").read_text()
    assert "key ***\n" in log and "from a shell: ***\n" in log
    holding = [
        p for p in small_home.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()
    ]
    assert holding == []
