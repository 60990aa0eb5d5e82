"""What a stage starts ends with it, also what has left its session."""

import json
import os
import threading
from pathlib import Path

import pytest

from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.execution.family import descendants
from foundry_core.execution.job import Interrupted, StageFailed
from tests.orchestration import until
from tests.support import install_kinds, stage_alone

KIND = """
import json, os, pathlib, signal, time
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage


class LeaveRecipe(Recipe):
    pids: str
    how: str


def daemon():
    '''The pid of a process without a parent, a group or a session in common with this one.'''
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writer, str(os.getpid()).encode())
            os.execvpe("sleep", ["sleep", "600"], {})
        os._exit(0)
    os.wait()
    return int(os.read(reader, 20))


class Leave(Stage):
    kind = "leave"
    output = ArtifactType.TEXT
    Recipe = LeaveRecipe

    @staticmethod
    def run(ctx):
        (ctx.out / "text").write_text("x")
        found = pathlib.Path(ctx.recipe.pids)
        found.with_suffix(".new").write_text(json.dumps([daemon(), daemon()]))
        found.with_suffix(".new").rename(found)
        if ctx.recipe.how == "raise":
            raise ValueError("wrong")
        if ctx.recipe.how == "wait":
            time.sleep(600)
        if ctx.recipe.how == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        return {}


STAGE = Leave
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["end", "raise", "wait", "deaf"])
def test_daemons_of_a_stage_end_with_it(small_home, tmp_path, monkeypatch, how):
    install_kinds(tmp_path, monkeypatch, {"leave": KIND})
    monkeypatch.setattr("foundry_core.execution.supervise._TERMINATE_SECONDS", 0.5)
    pids = tmp_path / "pids"
    under_way = PipelineRun(
        prepare(Request(pipeline=str(stage_alone(tmp_path, "leave", pids=str(pids), how=how))))
    )
    under_way.start()
    ended = []

    def work():
        try:
            ended.append(under_way.stage("leave"))
        except (Interrupted, StageFailed) as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    daemons = until(lambda: pids.exists() and json.loads(pids.read_text()), 60, "it has daemons")
    if how in ("wait", "deaf"):
        assert all(map(alive, daemons))
        assert set(daemons) <= set(descendants(os.getpid()))
        under_way.cancelled.set()
    thread.join(60)
    kinds = {"raise": StageFailed, "wait": Interrupted, "deaf": Interrupted}
    if how in kinds:
        assert isinstance(ended[0], kinds[how])
    else:
        assert ended[0].action == "run"
    until(lambda: not any(map(alive, daemons)), 5, "they are gone")
    under_way.finish("succeeded")
