"""Run by a Python that has openpi-client 0.1.2: its client and action chunk broker drive our
server. Arguments: port, steps per chunk, file for what happened."""

import json
import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

ROOT = "observation/robot__actual__"
port, horizon, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
episodes = []
for _ in range(2):
    policy = WebsocketClientPolicy("127.0.0.1", port)
    broker = ActionChunkBroker(policy, action_horizon=horizon)
    rng, actions = np.random.default_rng(0), []
    for _ in range(11):
        observation = {
            "observation/front": rng.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            "observation/wrist": rng.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            ROOT + "poses__right::panda__xyz": np.zeros(3),
            ROOT + "poses__right::panda__rot_6d": np.array([1.0, 0, 0, 0, 1, 0]),
            ROOT + "grippers__right::panda_hand": np.array([0.05]),
            "prompt": "do 1",
        }
        actions.append(np.asarray(broker.infer(observation)["actions"]).tolist())
    episodes.append(actions)
try:
    policy.infer({**observation, "observation/front": np.full((16, 16, 3), np.nan)})
    refused = ""
except RuntimeError as error:
    refused = str(error)
metadata = policy.get_server_metadata()["foundry"]
found = {"episodes": episodes, "refused": refused, "steps": metadata["execute_steps"]}
with open(out, "w") as file:
    json.dump(found, file)
