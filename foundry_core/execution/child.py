"""The process in which a stage runs: `python -m foundry_core.execution.child <control folder>`.

Reads job.json, runs the stage, leaves result.json. One process per attempt: a crash, an
out-of-memory kill or a leak in one stage cannot touch another, and kill -9 of the parent takes the
child along.
"""

import ctypes
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.execution.recheck import check_unchanged
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.stage import InputArtifact, StageContext
from foundry_core.store.disk import full_disk, is_full

_PR_SET_PDEATHSIG = 1
_PROGRESS_SECONDS = 0.5


def die_with_parent(parent: int) -> None:
    """Asks the kernel for SIGKILL when the parent goes (Linux). The parent may be gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


class FileProgress:
    """Progress as a small file that the parent polls; at most two writes a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = 0.0

    def __call__(self, done: float, total: float, message: str = "", **values: float) -> None:
        now = time.monotonic()
        if now - self._last < _PROGRESS_SECONDS and done < total:
            return
        self._last = now
        temporary = self._path.with_suffix(".tmp")
        state = {"done": done, "total": total, "message": message, "values": values}
        temporary.write_text(json.dumps(state))
        os.replace(temporary, self._path)


def context(job: dict[str, Any], progress: FileProgress) -> StageContext:
    """The StageContext a job describes."""
    stage = stage_kind(job["kind"])
    inputs = {
        slot: {label: _input(artifact) for label, artifact in named.items()}
        for slot, named in job["inputs"].items()
    }
    return StageContext(
        name=job["stage"],
        key=job["key"],
        seed=job["seed"],
        recipe=stage.Recipe.model_validate(job["recipe"]),
        resources=stage.Resources.model_validate(job["resources"]),
        inputs=inputs,
        out=Path(job["out"]),
        scratch=Path(job["scratch"]),
        progress=progress,
    )


def _input(artifact: dict[str, Any]) -> InputArtifact:
    return InputArtifact(**{**artifact, "path": Path(artifact["path"])})


def usage() -> dict[str, float]:
    """CPU seconds and peak memory (bytes) of this process and its children."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return {"cpu_seconds": cpu, "peak_memory": max(own.ru_maxrss, children.ru_maxrss) * 1024}


def main(control: Path) -> int:
    job = json.loads((control / "job.json").read_text())
    die_with_parent(job["parent"])
    result: dict[str, Any]
    try:
        stage = stage_kind(job["kind"])
        ctx = context(job, FileProgress(control / "progress.json"))
        check_unchanged(stage, ctx.recipe, job["identity"], "since the run was planned")
        metrics = stage.run(ctx)
        check_unchanged(stage, ctx.recipe, job["identity"], "while it ran")
        result = {"metrics": dict(metrics)}
    except FoundryError as error:
        result = {"error": error.message, "hint": error.hint}
        traceback.print_exc()
    # The boundary of the process: whatever went wrong is reported to the parent.
    except BaseException as error:
        result = {"error": f"{type(error).__name__}: {error}", "hint": "see the stage's log"}
        if is_full(error):
            full = full_disk(job["out"])
            result = {"error": full.message, "hint": full.hint}
        traceback.print_exc()
    result["usage"] = usage()
    _leave(result, control, Path(job["out"]))
    return 1 if "error" in result else 0


def _leave(result: dict[str, Any], control: Path, out: Path) -> None:
    """Writes result.json; on a full disk in the place of what the stage wrote."""
    temporary = control / "result.tmp"
    try:
        temporary.write_text(json.dumps(result))
    except OSError as error:
        if not is_full(error):
            raise
        full = full_disk(out)
        shutil.rmtree(out, ignore_errors=True)
        temporary.write_text(json.dumps({"error": full.message, "hint": full.hint}))
    os.replace(temporary, control / "result.json")


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.exit(main(Path(sys.argv[1])))
