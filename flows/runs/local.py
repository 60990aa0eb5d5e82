"""A run from start to end in this process: a stage in a thread, when what it needs is there."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from flows import signals
from flows.runs.engine import PipelineRun, RunResult
from flows.runs.walk import Pending, Work

# Waiting costs nothing: the machine's CPU slots bound what works at the same time. In the order of
# submission everything that a stage waits for has a thread before it has one itself.
_MAX_THREADS = 256


@dataclass(frozen=True)
class _Thread(Pending):
    future: Future[bool]

    def completed(self) -> bool:
        return self.future.result()


def walk_in_threads(work: Work) -> None:
    """Executes what must run. Raises StagesFailed when not everything came through."""
    pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="stage")
    try:
        work.walk(lambda run, name, needed: _Thread(pool.submit(_stage, run, name, needed)))
    finally:
        pool.shutdown(cancel_futures=True)


def _stage(run: PipelineRun, name: str, upstream: Sequence[Pending]) -> bool:
    if not all(one.completed() for one in upstream):
        return False
    try:
        run.stage(name)
    # Whatever it was: recorded with the run, and other branches go on.
    except Exception as error:
        run.fail(name, error)
        return False
    return True


def carried_out(
    work: Work, inside: AbstractContextManager[object], walk: Callable[[], None]
) -> RunResult:
    """Starts work, walks it inside of a context, and records the end, whichever it is. A failed
    stage raises nothing: the result's status says so. A KeyboardInterrupt goes on afterwards."""
    failure = None
    with signals.held() as released:
        work.start()
        try:
            with released(), inside:
                walk()
        except (KeyboardInterrupt, Exception) as error:
            failure = error
        result = work.finish(*end_of(failure))
    if isinstance(failure, KeyboardInterrupt):
        failure.add_note(f"{work.title}: cancelled; the next run takes up what it left")
        raise failure
    return result


def end_of(failure: BaseException | None) -> tuple[str, str]:
    """Status and error of a run that ended so."""
    if failure is None:
        return "succeeded", ""
    if isinstance(failure, KeyboardInterrupt):
        return "cancelled", str(failure) or "Ctrl-C"
    return "failed", str(failure)
