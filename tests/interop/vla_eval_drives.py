"""Run by a Python that has vla-eval 0.8.0: its own runner and connection play episodes of a small
benchmark of its API against our server. Arguments: port, file for what happened."""

import json
import sys

import anyio
import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.connection import Connection
from vla_eval.runners.sync_runner import SyncEpisodeRunner
from vla_eval.specs import IMAGE_RGB, LANGUAGE, POSITION_ABSOLUTE, DimSpec, check_specs

XYZ = "robot__actual__poses__right::panda__xyz"
ROT = "robot__actual__poses__right::panda__rot_6d"
GRIP = "robot__actual__grippers__right::panda_hand"


class Reach(StepBenchmark):
    """The hand goes where it is told; an episode is 11 steps."""

    def __init__(self):
        super().__init__()
        self.actions = []

    def get_tasks(self):
        return [{"name": "do 1", "task_id": 0, "suite": "reach"}]

    def reset(self, task):
        self.steps, self.rng = 0, np.random.default_rng(task.get("episode_idx", 0))
        self.actions.append([])
        return self._raw(np.zeros(3))

    def _raw(self, xyz):
        pictures = self.rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
        return {"xyz": xyz, "pictures": pictures}

    def step(self, action):
        target = np.asarray(action["actions"], np.float64)
        self.actions[-1].append(target.tolist())
        self.steps += 1
        return StepResult(obs=self._raw(target[:3]), reward=0.0, done=self.steps == 11, info={})

    def make_obs(self, raw, task):
        return {
            "images": dict(zip(("front", "wrist"), raw["pictures"], strict=True)),
            "states": {
                XYZ: raw["xyz"],
                ROT: np.array([1.0, 0, 0, 0, 1, 0]),
                GRIP: np.array([0.05]),
            },
            "task_description": task["name"],
        }

    def get_step_result(self, result):
        return {"success": bool(result.done)}

    def get_action_spec(self):
        return {"position": POSITION_ABSOLUTE, "rotation": DimSpec("rotation", 6, "raw")}

    def get_observation_spec(self):
        return {"front": IMAGE_RGB, "wrist": IMAGE_RGB, "language": LANGUAGE}


async def main(port, out):
    benchmark = Reach()
    results = []
    async with Connection(f"ws://127.0.0.1:{port}") as connection:
        for episode in (0, 1, 0):
            task = {**benchmark.get_tasks()[0], "episode_idx": episode}
            runner = SyncEpisodeRunner()
            results.append(await runner.run_episode(benchmark, task, connection, max_steps=20))
        said = connection.server_info
    specs = {
        name: {key: DimSpec.from_dict(one) for key, one in said[name].items()}
        for name in ("action_spec", "observation_spec")
    }
    warnings = check_specs(
        specs["action_spec"],
        benchmark.get_action_spec(),
        specs["observation_spec"],
        benchmark.get_observation_spec(),
    )
    with open(out, "w") as file:
        json.dump({"results": results, "actions": benchmark.actions, "warnings": warnings}, file)


anyio.run(main, int(sys.argv[1]), sys.argv[2])
