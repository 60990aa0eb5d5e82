"""What a server costs: round trips of an observation with two pictures of 224 x 224, at 1 and 8
clients, over every protocol, against the policy called directly. Server and clients are processes.

    python benchmarks/serving.py                          # the null policy
    python benchmarks/serving.py --policy FOLDER          # and a trained one, with its own pictures
    FOUNDRY_INTEROP_VLA_EVAL=.../python ...               # and vla-eval's own server, null policy
"""

import argparse
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rows import Row, add_rows_argument, write_rows

from foundry_core.execution.python import python_command
from foundry_core.serving.client import LbmClient, OpenPiClient, VlaEvalClient

HERE = "127.0.0.1"
_WARM = 10
_THEIRS = """
import sys
import numpy as np
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import serve


class Null(PredictModelServer):
    def predict(self, obs, ctx):
        return {"actions": np.zeros(7, np.float32)}

    def get_action_spec(self):
        return {}

    def get_observation_spec(self):
        return {}


serve(Null(), host="127.0.0.1", port=int(sys.argv[1]))
"""
_XYZ = "robot__actual__poses__right::panda__xyz"
_ROT = "robot__actual__poses__right::panda__rot_6d"
_GRIP = "robot__actual__grippers__right::panda_hand"


# Milliseconds of each line that was printed.
P50: dict[str, float] = {}


def observation(cameras: dict[str, tuple[int, int]]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "images": {
            name: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for name, size in cameras.items()
        },
        "lowdim": {
            _XYZ: np.zeros(3),
            _ROT: np.array([1.0, 0, 0, 0, 1, 0]),
            _GRIP: np.array([0.05]),
        },
        "instruction": "open the drawer",
    }


def caller(protocol: str, port: int, seen: dict[str, Any]) -> Callable[[], Any]:
    """One observation to one answer."""
    if protocol == "lbm":
        lbm = LbmClient(HERE, port)
        lbm.reset(0)
        return lambda: lbm.step(seen)
    if protocol == "openpi":
        named = {f"observation/{k}": v for k, v in {**seen["images"], **seen["lowdim"]}.items()}
        openpi = OpenPiClient(HERE, port)
        return lambda: openpi.infer({**named, "prompt": seen["instruction"]})
    vla_eval = VlaEvalClient(HERE, port)
    vla_eval.start({"task_id": 0})
    payload = {
        "images": seen["images"],
        "states": seen["lowdim"],
        "task_description": seen["instruction"],
    }
    return lambda: vla_eval.act(payload)


def client(protocol: str, port: int, seen: dict[str, Any], steps: int, out: Any) -> None:
    call, taken = caller(protocol, port, seen), []
    for _ in range(_WARM + steps):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    out.put(taken[_WARM:])


def round_trips(
    protocol: str, port: int, seen: dict[str, Any], clients: int, steps: int
) -> tuple[np.ndarray, float]:
    """(seconds of all calls, observations per second)."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    arguments = (protocol, port, seen, steps, out)
    running = [context.Process(target=client, args=arguments) for _ in range(clients)]
    for one in running:
        one.start()
    found = [out.get(timeout=600) for _ in running]
    for one in running:
        one.join()
    return np.concatenate(found), sum(len(one) / sum(one) for one in found)


def line(name: str, seconds: np.ndarray, rate: float = 0.0) -> None:
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    P50[name] = float(p50)
    print(f"{name:44} p50 {p50:8.2f} ms  p99 {p99:8.2f} ms  {rate:8.0f} observations/s", flush=True)


def direct(policy: Any, seen: dict[str, Any], steps: int) -> np.ndarray:
    """The policy's own call, in a process where nothing else is served."""
    policy.reset("a", 0)
    taken = []
    for _ in range(_WARM + steps):
        begun = time.perf_counter()
        policy.infer([("a", seen)])
        taken.append(time.perf_counter() - begun)
    return np.array(taken[_WARM:])


def served(name: str, what: list[str], seen: dict[str, Any], steps: int) -> None:
    ports = ("--lbm", "0", "--openpi", "0", "--vla-eval", "0")
    command = python_command(
        "flows.cli", "policy", "serve", *what, *ports, "--execute-steps", "1", "--json"
    )
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += server.stdout.readline()
        for protocol, port in json.loads(text)["ports"].items():
            for clients in (1, 8):
                taken, rate = round_trips(protocol, port, seen, clients, steps)
                line(f"{name}, {protocol}, {clients} client(s)", taken, rate)
    finally:
        server.terminate()
        server.wait(30)


def theirs(python: str, seen: dict[str, Any], steps: int) -> None:
    with socket.socket() as free:
        free.bind((HERE, 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    server = subprocess.Popen(
        [python, "-c", _THEIRS, str(port)], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                VlaEvalClient(HERE, port).close()
                break
            except Exception:
                time.sleep(0.5)
        for clients in (1, 8):
            taken, rate = round_trips("vla_eval", port, seen, clients, steps)
            line(f"vla-eval's own server, null, {clients} client(s)", taken, rate)
    finally:
        server.terminate()
        server.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--steps", type=int, default=200, help="of each client")
    add_rows_argument(parser)
    options = parser.parse_args()
    from foundry_core.serving.stand_ins import NullPolicy, stand_in_contract

    seen = observation({"scene": (224, 224), "wrist": (224, 224)})
    line("null, called directly", direct(NullPolicy(stand_in_contract()), seen, options.steps))
    served("null", ["--null"], seen, options.steps)
    if python := os.environ.get("FOUNDRY_INTEROP_VLA_EVAL"):
        theirs(python, seen, options.steps)
    if options.policy is not None:
        from foundry_core.serving.policy import load_policy

        policy = load_policy(options.policy, threads=1)
        sizes = {n: c.drawn or c.size or (16, 16) for n, c in policy.contract.cameras.items()}
        seen = observation(sizes)
        line("policy, called directly", direct(policy, seen, options.steps))
        served("policy", [str(options.policy), "--threads", "1"], seen, options.steps)
    own = "vla-eval's own server, null, "
    rows = [
        Row(
            what=f"round trip of an observation: {name}",
            unit="ms",
            ours=p50,
            beside="vla-eval's own server" if name.startswith("null, vla_eval") else "",
            theirs=P50.get(own + name.rpartition(", ")[2]) if "null, vla_eval" in name else None,
        )
        for name, p50 in P50.items()
        if not name.startswith(own)
    ]
    write_rows(options.rows, rows)


if __name__ == "__main__":
    sys.exit(main())
