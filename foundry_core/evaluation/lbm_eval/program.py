"""Run by LBM Eval's own Python, and by its worker processes: plays the scenarios of a list, which
its command line cannot. Standard library and lbm_eval only. Argument: a JSON file with {server_uri,
output_directory, num_processes, evaluations: [{skill_type, scenario_index}]}."""

import ctypes
import json
import multiprocessing
import signal
import sys
from pathlib import Path


def die_with_parent() -> None:
    """A worker whose server is gone would wait for it for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(path: str) -> None:
    from lbm_eval.evaluate import evaluate_many  # type: ignore[import-not-found]

    asked = json.loads(Path(path).read_text())
    place = Path(asked["output_directory"])
    common = {"output_directory": place, "server_uri": asked["server_uri"]}
    evaluate_many(
        evaluations=[{**common, **one} for one in asked["evaluations"]],
        output_directory=place,
        num_processes=asked["num_processes"],
    )


die_with_parent()
if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    main(sys.argv[1])
