"""The folders of runs, <home>/runs/<run id>: logs of stages, reports. What runs did is in the
lineage."""

import contextlib
import shutil

from flows import processes
from foundry_core.files import names_in
from foundry_core.home import home_dir

KEPT = 200


def prune() -> None:
    """Removes the oldest folders beyond KEPT; a run's id begins with its time. Those of runs that
    are recorded as at work stay."""
    folder = home_dir() / "runs"
    old = names_in(folder)[:-KEPT]
    at_work = {entry.id for entry in processes.entries("run")} if old else set()
    for name in old:
        if name not in at_work:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder / name)
