"""One stage job as a process of its own, for job systems.

`python -m foundry_core.execution.ray_entry` reads $FOUNDRY_JOB, {"job": as `StageJob.to_json`,
"store": uri}, and $FOUNDRY_RAY_JOB, its id there. Progress goes to standard output as lines that
the coordinator picks out of the job's log. Exit code 0: committed or reused; 1: the stage failed;
130: it was stopped; anything else: the process died.
"""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.execution.job import Interrupted, StageFailed, StageJob
from foundry_core.execution.runner import execute
from foundry_core.lineage.events import EventLog
from foundry_core.store.open import open_store

MARK = "foundry-progress "
FAILED, STOPPED = 1, 130
# The whole log is fetched to read its last line: days of training must not make it long.
_EVERY_SECONDS = 10.0


class Printed:
    """An observer that prints at most one line in 10 s."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, state: Mapping[str, Any]) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_SECONDS
            print(MARK + json.dumps(dict(state)), flush=True)


def last_progress(log: str) -> dict[str, Any] | None:
    """The newest state in a job's log."""
    lines = [line for line in log.splitlines() if line.startswith(MARK)]
    return json.loads(lines[-1].removeprefix(MARK)) if lines else None


def main() -> int:
    cancelled = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: cancelled.set())
    sent = json.loads(os.environ["FOUNDRY_JOB"])
    store = open_store(sent["store"])
    try:
        job = StageJob.from_json(sent["job"], store)
        job = dataclasses.replace(job, job_ref=f"ray:{os.environ['FOUNDRY_RAY_JOB']}")
        events = EventLog(store.events_uri)
        execute(job, store, events, observe=Printed(), cancelled=cancelled)
    except Interrupted as error:
        print(error, file=sys.stderr)
        return STOPPED
    except (StageFailed, FoundryError) as error:
        print(error, file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
