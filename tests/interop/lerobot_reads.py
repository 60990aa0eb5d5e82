"""Run by a Python that has LeRobot: python lerobot_reads.py DATASET OUT.npz

What LeRobotDataset gives for every row: numbers as its table holds them, pictures as uint8
[N, H, W, 3], tasks. Where no torchcodec works, frames of videos are found by PyAV at the times that
LeRobot asks for.
"""

import sys

import av
import numpy as np
import torch
from lerobot.datasets import lerobot_dataset


def frames_at(path, times, tolerance, backend=None):
    with av.open(str(path)) as container:
        frames = [
            (frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]
    found = []
    for time in times:
        at, picture = min(frames, key=lambda one: abs(one[0] - time))
        assert abs(at - time) < tolerance, (at, time)
        found.append(torch.from_numpy(picture).permute(2, 0, 1).float() / 255)
    return torch.stack(found)


def torchcodec_works():
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


if not torchcodec_works():
    lerobot_dataset.decode_video_frames = frames_at
dataset = lerobot_dataset.LeRobotDataset("local/exported", root=sys.argv[1])
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
