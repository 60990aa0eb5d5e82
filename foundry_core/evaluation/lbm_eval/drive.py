"""Starts LBM Eval, follows its results file, starts it again for what is missing.

An episode that LBM Eval's file calls crashed is played once more. A start that ends, or hangs,
without one finished episode is followed by starts for single episodes, so that the one that takes
the program down is found, and counted as crashed. What became of an episode is in LBM Eval's files
from the moment it finished: a killed evaluation reads them first, and plays nothing twice.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.evaluation.lbm_eval import program
from foundry_core.evaluation.lbm_eval.installation import Installation
from foundry_core.evaluation.lbm_eval.served import ServedForLbm
from foundry_core.evaluation.results.lbm import read_progress
from foundry_core.evaluation.rollout.episodes import ATTEMPTS, EpisodePlan, Rollout
from foundry_core.evaluation.score import EpisodeResult
from foundry_core.evaluation.task_names import pascal_case
from foundry_core.execution.family import kill_descendants
from foundry_core.files import settled, signature, write_json

_POLL_SECONDS = 0.5
_STALL_SECONDS = 900.0
"""Without an observation and without a finished episode: a worker that was killed leaves LBM Eval
waiting for ever."""
_TAIL = 2000
# The kernel ends the program when this process goes, however that ends.
_TIED = (
    "import ctypes, os, sys; "
    "sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, 9); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)

_Key = tuple[str, int]


class Drive:
    """plans: the episodes to play. folder: for LBM Eval's output, a folder below for each start;
    those of an earlier call are read first. on_rollout: told each finished episode once."""

    def __init__(
        self,
        installation: Installation,
        served: ServedForLbm,
        plans: Sequence[EpisodePlan],
        processes: int,
        folder: Path,
        on_rollout: Callable[[Rollout], None],
        *,
        stall_seconds: float = _STALL_SECONDS,
    ) -> None:
        self._installation, self._served = installation, served
        self._processes, self._folder = processes, folder
        self._on_rollout, self._stall_seconds = on_rollout, stall_seconds
        self._waiting = {(pascal_case(p.key[0]), p.key[1]): p for p in plans}
        self._crashes: dict[_Key, int] = {}
        self._finished = 0
        self._works = False  # whether any episode ever came to an end here
        self._read: dict[Path, object] = {}  # a file as it was when it was read last

    def run(self) -> None:
        for earlier in self._starts():
            self._take(earlier, crashes=False)
        alone = 0
        while self._waiting:
            batch = list(self._waiting.values())[: 1 if alone else None]
            news, why = self._start(batch)
            if news:
                alone = max(0, alone - 1)
            elif not alone:
                # LBM Eval begins them in order: one of the first broke it.
                alone = self._processes
            elif not self._works:
                lines = why.splitlines()
                raise FoundryError(
                    f"LBM Eval plays nothing: {lines[0]}: {lines[-1]}", f"see {self._starts()[-1]}"
                )
            else:
                self._crashed(batch[0], why)
                alone -= 1

    def _starts(self) -> list[Path]:
        return sorted(self._folder.glob("start-*"))

    def _start(self, batch: Sequence[EpisodePlan]) -> tuple[bool, str]:
        """Plays these; (whether anything became of any, how the program ended)."""
        place = self._folder / f"start-{len(self._starts()):04d}"
        place.mkdir(parents=True)
        log, told = place / "output.log", set[_Key]()
        before = self._finished, dict(self._crashes)
        command = [sys.executable, "-I", "-c", _TIED, *self._command(batch, place)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
            )
            try:
                why = self._follow(process, place, told)
            finally:
                kill_descendants(process.pid)
                process.kill()
                process.wait()
        self._take(place, told=told)
        self._served.check()
        return before != (self._finished, self._crashes), f"{why}\n{_tail(log)}"

    def _command(self, batch: Sequence[EpisodePlan], place: Path) -> list[str]:
        python = self._installation.python
        if python is not None:
            asked = {
                "server_uri": self._served.uri,
                "output_directory": str(place),
                "num_processes": min(self._processes, len(batch)),
                "evaluations": [
                    {"skill_type": plan.key[0], "scenario_index": plan.key[1]} for plan in batch
                ],
            }
            write_json(place / "asked.json", asked)
            return [str(python), str(Path(program.__file__)), str(place / "asked.json")]
        # The command line knows ranges from 0 on only: what is known already is played again, and
        # what comes of it is not looked at.
        most = max(plan.key[1] for plan in batch) + 1
        return [
            str(self._installation.program),
            f"--output_directory={place}",
            *[f"--skill_type={task}" for task in dict.fromkeys(plan.key[0] for plan in batch)],
            f"--num_evaluations={most}",
            f"--num_processes={min(self._processes, most)}",
            f"--server_uri={self._served.uri}",
        ]

    def _follow(self, process: "subprocess.Popen[bytes]", place: Path, told: set[_Key]) -> str:
        """Until the program ends, or nothing comes of it any more; how it ended."""
        state, since = (0, 0), time.monotonic()
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            self._take(place, told=told)
            self._served.check()
            now = (self._served.asked, len(told))
            if now != state:
                state, since = now, time.monotonic()
            elif time.monotonic() - since > self._stall_seconds:
                return f"nothing came of it for {self._stall_seconds:g} s"
        return f"exit code {process.returncode}"

    def _take(self, place: Path, *, told: set[_Key] | None = None, crashes: bool = True) -> None:
        """What a start's file says and was not taken yet. told: of a running start, what was.
        crashes: whether they count; those of an earlier call are tried again."""
        told = set() if told is None else told
        for file in place.glob("results-*.json"):
            stat = file.stat()
            now = signature(stat)
            if self._read.get(file) == now and settled(stat):
                continue  # it holds all episodes, and is replaced after each
            self._read[file] = now
            for found in read_progress(file):
                if found.pending or found.key in told:
                    continue
                told.add(found.key)
                self._works = True
                plan = self._waiting.get(found.key)
                if plan is not None and (crashes or not found.crashed):
                    self._add(plan, found)

    def _add(self, plan: EpisodePlan, found: EpisodeResult) -> None:
        key = found.key
        success, message = found.success, found.failure_message
        if found.crashed:
            wrong = self._served.wrong(message or "")
            if wrong is None:
                self._crashes[key] = self._crashes.get(key, 0) + 1
                if self._crashes[key] < ATTEMPTS:
                    return
            else:
                # The policy's failure, which LBM Eval saw as a server that refuses.
                success, message = False, wrong
        self._finish(key, plan, success, message, found.seconds)

    def _crashed(self, plan: EpisodePlan, why: str) -> None:
        self._finish((pascal_case(plan.key[0]), plan.key[1]), plan, None, why, 0.0)

    def _finish(
        self,
        key: _Key,
        plan: EpisodePlan,
        success: bool | None,
        message: str | None,
        seconds: float,
    ) -> None:
        del self._waiting[key]
        self._finished += 1
        result = plan.result(success=success, failure_message=message, seconds=seconds)
        self._on_rollout(Rollout(result=result))


def _environment() -> dict[str, str]:
    """Without what leads its Python to our packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _tail(log: Path) -> str:
    return log.read_bytes()[-_TAIL:].decode(errors="replace").strip()
