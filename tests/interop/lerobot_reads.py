"""Run by a Python that has LeRobot: python lerobot_reads.py DATASET OUT.npz

What LeRobotDataset gives for every row: numbers as its table holds them, pictures as uint8
[N, H, W, 3] by its own decoder, tasks. Exit code 3: that decoder does not load here.
"""

import importlib.util
import sys

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = LeRobotDataset("local/exported", root=sys.argv[1])
if any(feature["dtype"] == "video" for feature in dataset.features.values()):
    # Its other decoder, torchvision's, is gone from the torchvision that it takes.
    if importlib.util.find_spec("torchcodec") is None:
        print("there is no torchcodec")
        sys.exit(3)
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        print(f"torchcodec does not load: {str(error).strip().splitlines()[0]}")
        sys.exit(3)
rows = [dataset[number] for number in range(len(dataset))]
found = {"tasks": np.array([row["task"] for row in rows])}
for name, feature in dataset.features.items():
    if feature["dtype"] in ("image", "video"):
        pictures = torch.stack([row[name] for row in rows]).permute(0, 2, 3, 1)
        found[name] = (pictures * 255).round().to(torch.uint8).numpy()
    else:
        found[name] = np.array(dataset.hf_dataset.data.column(name).to_pylist())
        given = torch.stack([torch.as_tensor(row[name]) for row in rows]).numpy()
        assert np.array_equal(given.astype(np.float32), found[name].astype(np.float32)), name
for name, entry in dataset.meta.stats.items():
    for kind, values in entry.items():
        found[f"stats|{name}|{kind}"] = values
np.savez(sys.argv[2], **found)
