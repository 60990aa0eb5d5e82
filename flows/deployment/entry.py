"""Processes that must not outlive the one that started them: `python -m flows.deployment.entry`.

    server HOST PORT      the Prefect server
    worker POOL NAME      a process worker of a pool
    engine                one flow run, started by a worker (id in PREFECT__FLOW_RUN_ID)

A worker that is killed by force cannot stop its flow runs; the kernel does it (PR_SET_PDEATHSIG),
and what a flow run has started goes the same way. A flow run also leaves a file that says which
process it is, so that the reaper knows a dead one from a slow one.
"""

import os
import runpy
import sys
from collections.abc import Sequence

from flows.prefect import QUIET
from flows.processes import PARENT, recorded
from foundry_core.execution.child import die_with_parent


def prefect(*arguments: str) -> None:
    """Prefect's own command line in this process."""
    sys.argv = ["prefect", *arguments]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def engine() -> None:
    """Prefect's engine: loads and runs the flow whose id the worker put into the environment."""
    # What a terminal would show is the log on the run's page. (A job's own environment is no place
    # for this: the worker's settings win over it.)
    if os.environ.get("PREFECT_LOGGING_LEVEL") == QUIET:
        os.environ["PREFECT_LOGGING_LEVEL"] = "INFO"
    with recorded("flow-run", os.environ["PREFECT__FLOW_RUN_ID"]):
        sys.argv = ["prefect.engine"]
        runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def main(arguments: Sequence[str]) -> None:
    """Ties this process to its parent, then becomes what `arguments` name."""
    # Without the variable a person started this: then its parent is whatever it is now.
    parent = int(os.environ.get(PARENT) or os.getppid())
    os.environ[PARENT] = str(os.getpid())
    die_with_parent(parent)
    match list(arguments):
        case ["server", host, port]:
            prefect("server", "start", "--host", host, "--port", port)
        case ["worker", pool, name]:
            prefect("worker", "start", "--pool", pool, "--type", "process", "--name", name)
        case ["engine"]:
            engine()
        case _:
            sys.exit(f"unknown role {' '.join(arguments)!r}: server, worker or engine")


if __name__ == "__main__":
    main(sys.argv[1:])
