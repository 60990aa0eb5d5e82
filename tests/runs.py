"""Runs of the small pipeline in this process or in forked ones, without Prefect."""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from flows.runs.engine import PipelineRun
from flows.runs.planning import Prepared, Request, prepare
from foundry_core.config.overrides import parse_override
from tests.support import WORDS

_FORK = multiprocessing.get_context("fork")


def prepared(*overrides: str, **options: Any) -> Prepared:
    pairs = tuple(parse_override(text) for text in overrides)
    return prepare(Request(pipeline=str(WORDS), overrides=pairs, **options))


def run(*overrides: str, **options: Any) -> tuple[dict[str, str], PipelineRun]:
    """One run to its end, stage after stage: ({stage: action}, the run)."""
    under_way = PipelineRun(prepared(*overrides, **options))
    under_way.start()
    for name in under_way.affected():
        under_way.stage(name)
    result = under_way.finish("succeeded")
    return {stage["name"]: stage["action"] for stage in result["stages"]}, under_way


class Forked:
    """A function in a forked process; `result()` is what it returned, as JSON-like data."""

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._receive, send = _FORK.Pipe(duplex=False)
        self.process = _FORK.Process(target=_work, args=(send, work, arguments))
        self.process.start()
        _forked.append(self)
        send.close()

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def result(self, timeout: float = 90.0) -> Any:
        if not self._receive.poll(timeout):
            self.process.kill()
            raise TimeoutError(f"process {self.pid} did not end within {timeout} s")
        value = self._receive.recv()
        self.process.join()
        if isinstance(value, BaseException):
            raise value
        return value


_forked: list[Forked] = []


def end_forked() -> None:
    """Kills what is left of them, stopped ones too."""
    while _forked:
        forked = _forked.pop()
        forked.process.kill()
        forked.process.join()


def _work(send: Any, work: Callable[..., Any], arguments: tuple) -> None:
    os.setsid()
    try:
        value = work(*arguments)
    except BaseException as error:  # the boundary of the process: the parent raises it
        value = RuntimeError(f"{type(error).__name__}: {error}")
    send.send(value)
