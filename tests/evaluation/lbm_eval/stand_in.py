"""Stands in for LBM Eval, written from the description of its command line, results file and
protocol. Messages are put together by hand, nothing of ours is imported. No physics: an episode is
STEPS observations, and comes out as the file that STAND_IN names says.

That file: {"ledger": a file with a line per episode that was begun, "outcomes": {"skill/scenario":
success (default), failure, crash, crash_once (its first try), die (takes the program along), hang,
long}, "camera": the observations' camera}.
"""

import argparse
import datetime
import json
import os
import signal
import struct
import sys
import threading
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

STEPS = 5


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    """One field of a message: text or a message, whole number, real number, or packed reals."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, list):
        value = b"".join(struct.pack("<d", one) for one in value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(message):
    """number → the values of a message's fields."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = number()
        if key & 7 == 0:
            value = number()
        else:
            size = number() if key & 7 == 2 else 8
            value, at = message[at : at + size], at + size
        found.setdefault(key >> 3, []).append(value)
    return found


def observation(camera, step):
    pose = field(1, [0.1 * step, 0.2, 0.3]) + field(2, [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0])
    arms = b"".join(
        field(1, field(1, f"{side}::panda") + field(2, pose))
        + field(2, field(1, f"{side}::panda_hand") + field(2, 0.05))
        for side in ("right", "left")
    )
    picture = field(1, 16) + field(2, 16) + field(3, 3) + field(4, bytes(16 * 16 * 3))
    visuo = field(1, camera) + field(2, 1) + field(5, field(1, picture))
    robot = field(1, arms) + field(2, arms)
    return field(1, robot) + field(2, visuo) + field(4, 1) + field(5, "do it")


class Client:
    """One uuid per object, as LBM Eval's."""

    def __init__(self, uri):
        self.uuid = str(uuid.uuid4())
        self.channel = grpc.insecure_channel(uri)
        self.call("grpc.health.v1.Health/Check", b"")

    def call(self, method, request):
        return self.channel.unary_unary(f"/{method}")(request, wait_for_ready=True)

    def accepted(self, method, more):
        answer = fields(self.call(f"lbm_policy_interface.{method}", field(1, self.uuid) + more))
        if not answer.get(1, [0])[0]:
            raise RuntimeError(f"The server rejected this client uuid: {self.uuid}.")
        return answer.get(2, [b""])[0]


def play(skill, scenario, uri, told):
    begun = Path(told["ledger"]).read_text().split() if Path(told["ledger"]).exists() else []
    name = f"{skill}/{scenario}"
    with open(told["ledger"], "a") as ledger:
        ledger.write(name + "\n")
    outcome = told.get("outcomes", {}).get(name, "success")
    if outcome == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if outcome == "hang":
        time.sleep(600)
    client = Client(uri)
    client.accepted("PolicyResetService/PolicyReset", field(2, 1000 + scenario))
    poses = set()
    for step in range(STEPS):
        if outcome == "long":
            time.sleep(0.2)
        seen = observation(told.get("camera", "scene_right_0"), step)
        action = fields(client.accepted("PolicyStepService/PolicyStep", field(2, seen)))
        poses |= {fields(pose)[1][0].decode() for pose in action[1]}
    assert poses == {"right::panda", "left::panda"}, poses
    if outcome == "crash" or (outcome == "crash_once" and name not in begun):
        raise RuntimeError("DiscreteUpdate line search failed to converge")
    return outcome != "failure"


def evaluate_many(evaluations, output_directory=None, num_processes=1, **_):
    told = json.loads(Path(os.environ["STAND_IN"]).read_text())
    stamp = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
    path, lock = Path(output_directory) / f"results-{stamp}.json", threading.Lock()
    entries = [
        {
            "skill_type": one["skill_type"],
            "scenario_index": one["scenario_index"],
            "is_pending": True,
            "total_time": None,
            "is_success": None,
            "failure_message": None,
        }
        for one in evaluations
    ]

    def save():
        done = [one for one in entries if not one["is_pending"]]
        solved = sum(bool(one["is_success"]) for one in done)
        document = {
            "num_processes": num_processes,
            "elapsed_time": 1.0,
            "num_requested_evaluations": len(entries),
            "num_evaluated": len(done),
            "num_success": solved,
            "success_rate": solved / len(done) if done else 0.0,
            "evaluations": entries,
        }
        path.with_suffix(".tmp").write_text(json.dumps(document, indent=2))
        path.with_suffix(".tmp").rename(path)

    def one_of(index):
        asked = evaluations[index]
        try:
            solved = play(asked["skill_type"], asked["scenario_index"], asked["server_uri"], told)
            found = {"is_success": solved, "total_time": STEPS / 10}
        except Exception:
            found = {"is_success": False, "failure_message": traceback.format_exc()}
        with lock:
            entries[index] |= {"is_pending": False, **found}
            save()

    save()
    with ThreadPoolExecutor(num_processes) as pool:
        list(pool.map(one_of, range(len(evaluations))))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_directory", type=Path, required=True)
    parser.add_argument("--skill_type", dest="skills", action="append")
    parser.add_argument("--num_evaluations", type=int, default=10)
    parser.add_argument("--num_processes", type=int, default=1)
    parser.add_argument("--server_uri", default="localhost:50051")
    options = parser.parse_args()
    options.output_directory.mkdir(parents=True, exist_ok=True)
    evaluate_many(
        [
            {"skill_type": skill, "scenario_index": index, "server_uri": options.server_uri}
            for skill in options.skills
            for index in range(options.num_evaluations)
        ],
        options.output_directory,
        options.num_processes,
    )


if __name__ == "__main__":
    sys.exit(main())
