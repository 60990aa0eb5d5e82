"""LeRobot datasets and shards of their kind, with pictures that say where they belong.

Three grey squares at the top left spell episode % 10, frame // 10 and frame % 10; they survive
JPEG and video.
"""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow.parquet import write_table

from foundry_core.data.images import encode_jpeg
from foundry_core.data.video import VideoWriter, encoder
from tests.synthetic import ARM, WINDOW, episode_fields, npz, write_shards

SIDE = 16
FPS = 10


def coded(episode: int, frame: int, size: int = 64) -> np.ndarray:
    """uint8 [size, size, 3]"""
    image = np.full((size, size, 3), 90, np.uint8)
    for place, digit in enumerate(digits(episode, frame)):
        image[:SIDE, place * SIDE : (place + 1) * SIDE] = 20 + 22 * digit
    return image


def digits(episode: int, frame: int) -> list[int]:
    return [episode % 10, frame // 10 % 10, frame % 10]


def read_digits(image: np.ndarray) -> list[int]:
    """Of a picture whose short side is under 64, squares of 8 pixels."""
    side = SIDE if min(image.shape[:2]) >= 64 else SIDE // 2
    squares = (image[2 : side - 2, p * side + 2 : (p + 1) * side - 2] for p in range(3))
    return [round((float(square.mean()) - 20) / 22) for square in squares]


def make_coded_shards(folder: Path, lengths: Sequence[int] = (12, 23, 9), hz: float = 10.0) -> Path:
    """Robot shards of whole episodes: camera `front`, its matrices, the fields of one arm."""
    rng = np.random.default_rng(3)
    samples = []
    for number, length in enumerate(lengths):
        fields = episode_fields(rng, length)
        extrinsics = rng.normal(size=(length, 4, 4))
        members = {
            f"front_{step:06d}.jpg": encode_jpeg(coded(number, step), 95) for step in range(length)
        }
        members["lowdim.npz"] = npz({**fields, "extrinsics.front": extrinsics})
        members["metadata.json"] = json.dumps(
            {"episode_id": f"e{number}", "task": "lift", "length": length, "success": number != 1}
        ).encode()
        words = {"original": [f"lift cube {number % 2}"], "randomized": ["up"]}
        members["language_instructions.json"] = json.dumps(words).encode()
        samples.append((f"e{number}", members))
    write_shards(folder, samples, 2)
    described = {
        "format": "foundry-robot",
        "layout": "episode",
        "hz": hz,
        "cameras": {"front": {"height": 64, "width": 64}},
        "fields": {name: values.shape[1] for name, values in fields.items()},
        "window": WINDOW.model_dump(),
        "episodes": len(lengths),
        "windows": 1,
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def make_old(root: Path, lengths: Sequence[int] = (12, 7), *, video: bool = True) -> Path:
    """A dataset of version v2.1 with all kinds of columns; its tasks change inside episodes."""
    camera = "observation.images.front"
    number = {"shape": [1], "names": None}
    features = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": ["a", "b", "c"]},
        "pose": {"dtype": "float64", "shape": [2, 2], "names": None},
        "next.done": {"dtype": "bool", **number},
        "remark": {"dtype": "string", **number},
        "timestamp": {"dtype": "float32", **number},
        **{k: {"dtype": "int64", **number} for k in ("frame_index", "episode_index", "task_index")},
    }
    if video:
        names = ["channels", "height", "width"]
        features[camera] = {"dtype": "video", "shape": [3, 64, 64], "names": names}
    info = {
        "codebase_version": "v2.1",
        "fps": FPS,
        "chunks_size": 1,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{episode_chunk}/{video_key}/{episode_index:06d}.mp4",
        "features": features,
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    tasks = [{"task_index": 4, "task": "open"}, {"task_index": 0, "task": "close"}]
    episodes = [{"episode_index": e, "length": n, "tasks": []} for e, n in enumerate(lengths)]
    for name, rows in (("tasks", tasks), ("episodes", episodes)):
        (root / f"meta/{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    for episode, length in enumerate(lengths):
        path = root / f"data/chunk-{episode:03d}/episode_{episode:06d}.parquet"
        path.parent.mkdir(parents=True)
        write_table(pa.table(old_columns(episode, length)), path)
        if video:
            file = root / f"videos/{episode}/{camera}/{episode:06d}.mp4"
            writer = VideoWriter(file, Fraction(FPS), encoder())
            for step in range(length):
                writer.add(coded(episode, step))
            writer.close()
    return root


def old_columns(episode: int, length: int) -> dict[str, pa.Array]:
    """The columns of an episode of `make_old`."""
    rng = np.random.default_rng(episode)
    steps = np.arange(length)
    state = rng.normal(size=(length, 3)).astype(np.float32)
    return {
        "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(state.ravel()), 3),
        "pose": pa.array(rng.normal(size=(length, 2, 2)).tolist()),
        "next.done": pa.array(steps == length - 1),
        "remark": pa.array(["careful"] * (length - 1) + ["done"]),
        "timestamp": pa.array((steps / FPS).astype(np.float32)),
        "frame_index": pa.array(steps),
        "episode_index": pa.array(np.full(length, episode)),
        "task_index": pa.array(np.where(steps < 3, 0, 4)),
    }


STATE_FIELDS = [ARM.format("actual") + part for part in ("__xyz", "__rot_6d")]
