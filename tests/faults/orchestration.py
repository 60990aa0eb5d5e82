"""What a kill, a cancel or a restart leaves behind, tried: `python -m tests.faults.orchestration`.

Every case starts a run through `foundry serve` (pool limit 1), does the damage in the middle of a
training and asks, independently of what Foundry says: is every flow run closed, no slot held, no
process left, no lease there; and does the same request, run again, complete, reuse what was built
and resume the training from its checkpoint? Prints a table and exits with 1 on any violation.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.orchestration import Serving, overrides, until

# Long enough to be hit in the middle, on a busy machine too.
_TRAIN_SECONDS = 12
_STEPS = 60
_HIT_AT = 10
_SETTLE_SECONDS = 150.0


@dataclass
class Run:
    """A request in flight, with a training of its own (another rate is another key)."""

    serving: Serving
    rate: float
    flow_run: str = ""
    facts: dict[str, str] = field(default_factory=dict)

    def start(self) -> str:
        changes = (
            f"model.rate={self.rate}",
            f"model.steps={_STEPS}",
            f"model.seconds={_TRAIN_SECONDS}",
        )
        rows = overrides(changes)
        return self.serving.submit("foundry/full", pipeline="exams", overrides=rows)

    def hit(self) -> None:
        """Started, and its training has taken some steps."""
        self.flow_run = self.start()
        until(lambda: self.step() >= _HIT_AT, 240, "the training is under way")
        self.facts["hit at step"] = str(self.step())

    def training(self) -> dict:
        return self.serving.trainings("RUNNING")[0]

    def step(self) -> int:
        found = (self.serving.home / "store" / "work").glob("*/scratch/state.json")
        steps = [0]
        for path in found:
            with contextlib.suppress(OSError, ValueError):
                steps.append(int(json.loads(path.read_text())["step"]))
        return max(steps)

    def pid(self, flow_run: str) -> int:
        return self.serving.pids("flow-run")[flow_run]


Case = Callable[[Run], str]


def cancel_run(run: Run) -> str:
    """cancel the run in the UI"""
    run.serving.cancel(run.flow_run)
    return run.serving.ended(run.flow_run, _SETTLE_SECONDS)


def cancel_training(run: Run) -> str:
    """cancel its training in the UI"""
    run.serving.cancel(run.training()["id"])
    return run.serving.ended(run.flow_run, _SETTLE_SECONDS)


def kill_coordinator(run: Run) -> str:
    """kill -9 of the coordinating flow's process"""
    os.kill(run.pid(run.flow_run), signal.SIGKILL)
    return run.serving.ended(run.flow_run, _SETTLE_SECONDS)


def kill_training_flow(run: Run) -> str:
    """kill -9 of the training flow's process"""
    os.kill(run.pid(run.training()["id"]), signal.SIGKILL)
    return run.serving.ended(run.flow_run, _SETTLE_SECONDS)


def kill_training(run: Run) -> str:
    """kill -9 of the process that trains"""
    for pid in run.serving.children():
        os.kill(pid, signal.SIGKILL)
    return run.serving.ended(run.flow_run, _SETTLE_SECONDS)


def kill_gpu_worker(run: Run) -> str:
    """kill -9 of the GPU pool's worker"""
    os.kill(run.serving.pids("service")["worker-gpu-pool"], signal.SIGKILL)
    return run.serving.ended(run.flow_run, 2 * _SETTLE_SECONDS)


def kill_pipeline_worker(run: Run) -> str:
    """kill -9 of the coordinators' worker"""
    os.kill(run.serving.pids("service")["worker-foundry"], signal.SIGKILL)
    return run.serving.ended(run.flow_run, _SETTLE_SECONDS)


def restart_server(run: Run) -> str:
    """kill -9 of the Prefect server"""
    os.kill(run.serving.pids("service")["server"], signal.SIGKILL)
    time.sleep(3)
    until(lambda: _answers(run), _SETTLE_SECONDS, "the server is back")
    return run.serving.ended(run.flow_run, 2 * _SETTLE_SECONDS)


def _answers(run: Run) -> bool:
    try:
        return bool(run.serving.api("/health"))
    except OSError:
        return False


def kill_everything(run: Run) -> str:
    """kill -9 of all processes at once, then `foundry serve` again"""
    for pid in run.serving.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.serving.process.wait()
    until(lambda: not run.serving.processes(), 10, "everything is dead")
    run.serving.start()
    return run.serving.ended(run.flow_run, _SETTLE_SECONDS)


def kill_serve(run: Run) -> str:
    """kill -9 of `foundry serve` alone, then `foundry serve` again"""
    run.serving.process.kill()
    run.serving.process.wait()
    until(lambda: not run.serving.processes(), 20, "its children went with it")
    run.serving.start()
    return run.serving.ended(run.flow_run, _SETTLE_SECONDS)


def two_at_once(run: Run) -> str:
    """the same run a second time beside it"""
    second = run.start()
    ends = {run.serving.ended(one, 2 * _SETTLE_SECONDS) for one in (run.flow_run, second)}
    trained = run.serving.lineage(
        "select key from attempt where kind = 'train' and state = 'committed' "
        f"and key in (select key from artifact where recipe->>'$.rate' = '{run.rate}')"
    )
    run.facts["trainings"] = str(len(trained))
    if len(trained) != 1:
        raise AssertionError(f"the shared training ran {len(trained)} times")
    return "/".join(sorted(ends))


# case → how the run itself may end
CASES: dict[Case, tuple[str, ...]] = {
    cancel_run: ("CANCELLED",),
    cancel_training: ("FAILED", "CANCELLED"),
    kill_coordinator: ("CRASHED",),
    kill_training_flow: ("COMPLETED",),
    kill_training: ("FAILED",),
    kill_gpu_worker: ("COMPLETED",),
    kill_pipeline_worker: ("CRASHED",),
    restart_server: ("COMPLETED",),
    kill_everything: ("CRASHED",),
    kill_serve: ("CRASHED",),
    two_at_once: ("COMPLETED",),
}


def clean(serving: Serving) -> str:
    """What is still open; empty when nothing is."""
    left = [f"{run['name']} {run['state']['type']}" for run in serving.flow_runs()]
    left += [f"lease {key[:8]}" for key in serving.leases()]
    left += [f"stage process {pid}" for pid in serving.children()]
    left += [f"flow process {pid}" for pid in serving.pids("flow-run").values()]
    left += [f"run {name}" for name in serving.pids("run")]
    return ", ".join(left)


def _open(serving: Serving) -> str:
    try:
        return clean(serving)
    except OSError as error:
        return f"the server does not say ({error})"


def tried(serving: Serving, case: Case, number: int) -> dict[str, str]:
    """One case as a row of the table. Raises AssertionError on a violation."""
    run = Run(serving, rate=round(0.011 + number / 1000, 4))
    run.hit()
    began = time.monotonic()
    end = case(run)
    if end not in CASES[case]:
        raise AssertionError(f"the run ended {end}, expected {' or '.join(CASES[case])}")
    until(lambda: not clean(serving), _SETTLE_SECONDS, "all is closed")
    seconds = time.monotonic() - began
    again = run.start()
    second = serving.ended(again, 2 * _SETTLE_SECONDS)
    if second != "COMPLETED":
        raise AssertionError(f"run again it ended {second}")
    return {
        "what": case.__doc__ or "",
        "the run ended": end.lower(),
        "all closed after": f"{seconds:.0f} s",
        "run again": f"completed, training {_resumed(run, again)}",
    }


def _resumed(run: Run, again: str) -> str:
    """Whether the second run resumed or reused the training. Raises AssertionError for neither."""
    row = run.serving.lineage(
        "select s.action from run_stage s join pipeline_run r using (run_id) "
        f"where r.job_ref = 'prefect:flow-run/{again}' and s.stage = 'model'"
    )
    if row[0]["action"] == "reuse":
        return "reused"
    folders = sorted((run.serving.home / "store" / "train").glob("*/records/resumed.txt"))
    newest = max(folders, key=lambda path: path.stat().st_mtime)
    step = int(newest.read_text())
    if step < _HIT_AT:
        raise AssertionError(f"the training began again at step {step}")
    return f"resumed at step {step} of {_STEPS}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = {case.__name__: case for case in CASES}
    parser.add_argument("--only", action="append", choices=names, help="one case; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep the home for looking at logs")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="foundry-faults-")) / "home"
    failed = 0
    rows = []
    with Serving(home, gpu_limit=1) as serving:
        for number, name in enumerate(options.only or names):
            try:
                rows.append(tried(serving, names[name], number))
                print(f"ok    {name}: {rows[-1]}", flush=True)
            except (AssertionError, OSError) as error:
                failed += 1
                print(f"FAILED {name}: {error}; open: {_open(serving)}", flush=True)
    left = serving.processes()
    if left:
        failed += 1
        print(f"FAILED processes are left: {left}")
    _table(rows)
    if not options.keep:
        shutil.rmtree(home.parent, ignore_errors=True)
    return 1 if failed else 0


def _table(rows: list[dict[str, str]]) -> None:
    if rows:
        print("| " + " | ".join(rows[0]) + " |")
        print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    sys.exit(main())
