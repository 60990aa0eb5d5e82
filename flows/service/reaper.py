"""Tidies up after deaths: what a killed process left open is closed, so that nothing waits for it.

Closes runs whose process is gone, forces cancellations that nobody carries out, cancels children of
ended parents, breaks leases of dead holders, stops Ray jobs without a coordinator. Safe at any time
and in any number: what lives is never touched. A process of another host cannot be seen from here:
its runs fall to the zombie automation, its leases to their heartbeat.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flows import processes
from foundry_core.home import home_dir, store_uri
from foundry_core.lineage.event_types import RunFinished
from foundry_core.lineage.events import EventLog
from foundry_core.store.open import open_store

EVERY_SECONDS = 60.0
# After these many seconds nobody is going to do it any more.
_CANCELLING_SECONDS = 60.0
_PENDING_SECONDS = 180.0
_ENDED_SECONDS = 45.0
_RAY_SECONDS = 600.0
_STOP_SECONDS = 10.0
_CANCEL_SECONDS = 20.0
_OPEN_RUNS = """select run_id from pipeline_run
    where coalesce(status, 'running') = 'running' and (run_id = ? or parent = ?)"""


class Reaped(dict[str, list[str]]):
    """What was done: category → names. Empty categories are left out."""

    def add(self, category: str, name: str) -> None:
        self.setdefault(category, []).append(name)

    def lines(self) -> list[str]:
        """One per category, for people."""
        return [f"{category}: {', '.join(names)}" for category, names in self.items()]


def reap(*, server: bool = True, ray_seconds: float = 0.0) -> Reaped:
    """One pass. server: whether a Prefect server is asked too. ray_seconds: how long a Ray job
    may be without a coordinator, which may be about to be started again."""
    reaped = Reaped()
    _runs(reaped)
    _leases(reaped)
    _ray_jobs(reaped, ray_seconds)
    if server:
        _flow_runs(reaped)
        _stuck(reaped)
        _orphans(reaped)
    for entry in _dead("service"):
        entry.forget()
    return reaped


def _dead(kind: processes.Kind) -> list[processes.Entry]:
    return [entry for entry in processes.entries(kind) if entry.dead]


def cancel_all(message: str, patience: float = _CANCEL_SECONDS) -> None:
    """For a server that is about to stop: what its workers have begun is cancelled, as in the UI.
    Returns when they have ended it, or after `patience` seconds."""
    from flows.prefect.api import StateType, cancel_run, open_runs

    for run in open_runs(states=[StateType.PENDING, StateType.RUNNING]):
        if run.work_pool_name is not None:
            cancel_run(run.id, message)
    processes.wait_until(lambda: all(e.dead for e in processes.entries("flow-run")), patience, 0.2)


def close_all(message: str, *, server: bool) -> None:
    """For a server whose workers were stopped: what they left open is closed now. server: whether
    it answers."""
    reaped = Reaped()
    _runs(reaped, "cancelled", message)
    _leases(reaped)
    if server:
        _flow_runs(reaped, message)
        _orphans(reaped)


def _runs(reaped: Reaped, status: str = "lost", error: str = "its process died") -> None:
    """Pipeline runs of dead processes: the lineage learns that they, and the runs they had begun
    for the variants of an ablation, ended."""
    from foundry_core.lineage import queries
    from foundry_core.lineage.index import Index

    for entry in _dead("run"):
        log = EventLog(open_store(entry.facts["store"]).events_uri)
        index = Index(home_dir() / queries.INDEX_NAME, log)
        index.advance()
        with contextlib.closing(queries.connect()) as connection:
            rows = connection.execute(_OPEN_RUNS, [entry.id, entry.id]).fetchall()
        lost = RunFinished(run_id="", status=status, seconds=0.0, metrics={}, error=error)
        for (run_id,) in rows:
            log.append(replace(lost, run_id=run_id))
            reaped.add("runs closed", run_id)
        index.advance()
        entry.forget()


def _leases(reaped: Reaped) -> None:
    for key in open_store(store_uri()).free_dead_leases():
        reaped.add("leases released", key[:12])


def _ray_jobs(reaped: Reaped, seconds: float) -> None:
    for entry in _dead("ray-job"):
        # A process touches its file while it waits. One without was closed by another reaper.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - entry.path.stat().st_mtime < seconds:
                continue
            from flows.dispatch.ray_job import stop_job

            if stop_job(entry.facts["address"], entry.id):
                reaped.add("ray jobs stopped", entry.id)
            entry.forget()


def _flow_runs(reaped: Reaped, message: str = "its process died") -> None:
    """Flow runs whose process is dead: cancelled if that was wanted, crashed otherwise."""
    from flows.prefect.api import StateType, cancel_children, read_run, set_state

    for entry in _dead("flow-run"):
        run = read_run(UUID(entry.id))
        # Scheduled or pending: it is about to be run again, by another process.
        if run and run.state and (run.state.is_running() or run.state.is_cancelling()):
            wanted = run.state.is_cancelling()
            end = StateType.CANCELLED if wanted else StateType.CRASHED
            set_state(run.id, end, f"{message} (pid {entry.process['pid']})", force=True)
            cancel_children(run.id, f"its parent {run.name!r} ended: {message}")
            reaped.add("flow runs closed", run.name)
        entry.forget()


def _stuck(reaped: Reaped) -> None:
    """CANCELLING that no process carries out, PENDING that no worker goes on with, and processes
    that work on although their run was ended from outside."""
    from flows.prefect.api import StateType, open_runs, read_run, reschedule, set_state
    from flows.prefect.pools import process_pools

    alive = {entry.id: entry for entry in processes.entries("flow-run") if not entry.dead}
    for entry in alive.values():
        run = read_run(UUID(entry.id))
        if run is not None and run.state and run.state.is_final() and _since(run) > _ENDED_SECONDS:
            processes.stop(entry)
            reaped.add("processes of ended runs stopped", run.name)
    for run in open_runs(states=[StateType.CANCELLING]):
        if _since(run) < _CANCELLING_SECONDS:
            continue
        if str(run.id) in alive:
            processes.stop(alive[str(run.id)], patience=0.0)
        message = f"forced: cancelling took more than {_CANCELLING_SECONDS:.0f} s"
        set_state(run.id, StateType.CANCELLED, message, force=True)
        reaped.add("cancellations forced", run.name)
    # Containers may be pulled for minutes: only a process is known to begin at once.
    local = process_pools()
    for run in open_runs(states=[StateType.PENDING]):
        late = str(run.id) not in alive and _since(run) > _PENDING_SECONDS
        if late and run.work_pool_name in local:
            reschedule(run.id, "its worker died before it began")
            reaped.add("runs queued again", run.name)


def _orphans(reaped: Reaped) -> None:
    """Trainings whose coordinator has ended: nobody waits for them any more."""
    from flows.prefect.api import cancel_run, open_runs, parent_of

    for run in open_runs(tags=["train"]):
        parent = parent_of(run)
        if parent is None or parent.state is None or not parent.state.is_final():
            continue
        if run.state is not None and not run.state.is_cancelling():
            cancel_run(run.id, f"its coordinator {parent.name!r} has ended")
            reaped.add("trainings cancelled", run.name)


def _since(run: Any) -> float:
    return (datetime.now(UTC) - run.state.timestamp).total_seconds()


class Reaper:
    """Reaps at once and then every minute, in a thread of `foundry serve`."""

    def __init__(self, say: Callable[[str], None], every: float = EVERY_SECONDS) -> None:
        self._say = say
        self._every = every
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._loop, daemon=True, name="reaper")

    def start(self) -> None:
        self._thread.start()

    def soon(self) -> None:
        """Something has died: not only at the next full minute."""
        self._wake.set()

    def stop(self) -> None:
        """Waits some seconds for a pass that is under way."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _loop(self) -> None:
        while not self._stopped:
            try:
                lines = reap(ray_seconds=_RAY_SECONDS).lines()
            # The server restarts or is overloaded, a disk is full: shown, and tried again next
            # time. An error must not end what tidies up after errors.
            except Exception as error:
                lines = [f"not now: {error}"]
            for line in lines:
                self._say(f"reaper: {line}")
            self._wake.wait(self._every)
            self._wake.clear()
