"""One run of a pipeline without Prefect, which may kill itself before its n-th file operation.

    python -m tests.faults.worker PIPELINE [-o PATH=VALUE]... [--force STAGE] [--only STAGE]
        [--kill-before N]

An audit hook counts the file operations below $FOUNDRY_HOME and $FOUNDRY_STORE: a kill between any
two of them is a crash at an instant that random timing would hit once in thousands of runs.
Prints {"status", "steps", "stages": {name: [action, kind, key, content]}}.
"""

import argparse
import json
import os
import signal
import sys
import threading

from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.config.overrides import parse_override
from foundry_core.execution.job import Interrupted, StageFailed
from foundry_core.home import home_dir, store_uri

_OPERATIONS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.listdir"}


class Steps:
    """Counts file operations from `start` on; SIGKILL before number `kill_before`."""

    def __init__(self, kill_before: int) -> None:
        self.count = 0
        self._kill_before = kill_before
        self._roots = (str(home_dir()), store_uri())
        self._lock = threading.Lock()

    def start(self) -> None:
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if event not in _OPERATIONS or not arguments:
            return
        if not str(arguments[0]).startswith(self._roots):
            return
        with self._lock:
            self.count += 1
            if self.count == self._kill_before:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("pipeline")
    parser.add_argument("-o", dest="overrides", action="append", default=[])
    parser.add_argument("--force", action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--kill-before", type=int, default=0)
    options = parser.parse_args()
    steps = Steps(options.kill_before)
    steps.start()
    pairs = tuple(parse_override(text) for text in options.overrides)
    prepared = prepare(
        Request(
            pipeline=options.pipeline,
            overrides=pairs,
            force=tuple(options.force),
            only=tuple(options.only),
        )
    )
    run = PipelineRun(prepared)
    run.start()
    status, error = "succeeded", ""
    try:
        for name in run.affected():
            run.stage(name)
    except (StageFailed, Interrupted) as failure:
        status, error = "failed", str(failure)
    result = run.finish(status, error)
    stages = {}
    for row in result["stages"]:
        if status == "succeeded" and (row["artifact"] or row["attempt"]):
            found = run.artifact(row["name"])
            stages[row["name"]] = [row["action"], found.kind, found.key, found.content]
    print(json.dumps({"status": status, "error": error, "steps": steps.count, "stages": stages}))
    return 0 if status == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main())
