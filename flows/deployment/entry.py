"""Processes that must not outlive the one that started them: `python -m flows.deployment.entry`.

    server HOST PORT [NAME ...]     the Prefect server; NAME: what else browsers may call it
    worker POOL NAME                a worker of a pool
    engine                          one flow run, started by a worker (id in PREFECT__FLOW_RUN_ID)

A worker that is killed by force cannot stop its flow runs; the kernel does it (PR_SET_PDEATHSIG),
and what a flow run has started goes the same way. A flow run also leaves a file that says which
process it is, so that the reaper knows a dead one from a slow one.
"""

import os
import runpy
import shlex
import sys
from collections.abc import Sequence

from flows.deployment.server import entry_command
from flows.prefect import QUIET, secret
from flows.processes import PARENT, recorded
from flows.signals import ended_by_parent
from foundry_core.execution.child import die_with_parent


def server(host: str, port: int, names: Sequence[str]) -> None:
    # Prefect would take an empty password for one.
    if not os.environ.get(secret.SERVER):
        os.environ.pop(secret.SERVER, None)
    from flows.live.app import Live
    from flows.prefect.server import serve

    serve(host, port, names, Live)


def worker(pool: str, name: str) -> None:
    """It starts each flow run with this interpreter, not the first `python` on a PATH."""
    from flows.deployment.deployments import job_variables
    from flows.prefect.worker import work

    work(pool, name, shlex.join(entry_command("engine")), job_variables())


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
    if arguments[:1] != ["engine"]:
        ended_by_parent(lambda: sys.exit(0))
    match list(arguments):
        case ["server", host, port, *names]:
            server(host, int(port), names)
        case ["worker", pool, name]:
            worker(pool, name)
        case ["engine"]:
            engine()
        case _:
            sys.exit(f"unknown role {' '.join(arguments)!r}: server, worker or engine")


if __name__ == "__main__":
    main(sys.argv[1:])
