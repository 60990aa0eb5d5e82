"""Small synthetic datasets of every modality, in the on-disk formats."""

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from foundry_core.data.config import PoseGroup, WindowConfig
from foundry_core.data.images import encode_jpeg
from foundry_core.data.robot.poses import add_relative_fields, encode_rot6d
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.data.robot.windows import anchors, cut_windows
from foundry_core.data.shards.write import ShardFolderWriter, ShardInfo, ShardSample
from foundry_core.data.statistics.builder import compute_statistics

ARM = "robot__{}__poses__right::panda"
GRIPPER = "robot__{}__grippers__right::panda_hand"
WINDOW = WindowConfig(past=1, future=7, max_padding_left=1, max_padding_right=7)
INPUTS = RobotInputs(cameras=("front", "wrist"))


def write_shards(
    folder: Path, samples: Iterable[ShardSample], samples_per_shard: int
) -> list[ShardInfo]:
    writer = ShardFolderWriter(folder, samples_per_shard)
    for key, members in samples:
        writer.add(key, members)
    return writer.close()


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def rotations(rng: np.random.Generator, n: int) -> np.ndarray:
    q, _ = np.linalg.qr(rng.normal(size=(n, 3, 3)))
    q[np.linalg.det(q) < 0, 0] *= -1
    return encode_rot6d(q)


def episode_fields(rng: np.random.Generator, length: int) -> dict[str, np.ndarray]:
    fields = {}
    for kind in ("actual", "action"):
        fields[f"{ARM.format(kind)}__xyz"] = rng.normal(size=(length, 3))
        fields[f"{ARM.format(kind)}__rot_6d"] = rotations(rng, length)
        fields[GRIPPER.format(kind)] = rng.choice([0.0, 0.1], size=(length, 1))
    return fields


def picture(seed: int, size: int) -> np.ndarray:
    """Smooth, so that JPEG keeps it; told apart by its mean colour."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, size=(2, 2, 3))
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    top = corners[0, 0] * (1 - x[..., None]) + corners[0, 1] * x[..., None]
    bottom = corners[1, 0] * (1 - x[..., None]) + corners[1, 1] * x[..., None]
    return (top * (1 - y[..., None]) + bottom * y[..., None]).astype(np.uint8)


def make_robot(
    folder: Path, *, episodes: int = 6, seed: int = 0, size: int = 16, per_shard: int = 2
) -> Path:
    """An episode-layout dataset with stats.json, as convert_robot writes it."""
    rng = np.random.default_rng(seed)
    samples, windows, lengths, total = [], [], [], 0
    groups = [PoseGroup(reference=ARM.format("actual"), poses=(ARM.format("action"),))]
    for number in range(episodes):
        length = int(rng.integers(9, 20))
        lengths.append(length)
        fields = episode_fields(rng, length)
        members = {
            "lowdim.npz": npz(fields),
            "metadata.json": json.dumps({"length": length, "episode_id": f"e{number}"}).encode(),
            "language_instructions.json": json.dumps(
                {"original": [f"do {number}"], "randomized": [f"please do {number}", "go"]}
            ).encode(),
        }
        for c, camera in enumerate(INPUTS.cameras):
            for step in range(length):
                image = picture(seed * 10**6 + number * 1000 + c * 500 + step, size)
                members[f"{camera}_{step:06d}.jpg"] = encode_jpeg(image, 95)
        samples.append((f"e{seed}-{number}", members))
        at = anchors(length, WINDOW)
        cut, past, future = cut_windows(fields, at, WINDOW)
        total += len(at)
        windows.append((f"e{number}", add_relative_fields(cut, WINDOW.past, groups), past | future))
    write_shards(folder, samples, per_shard)
    info = {
        "format": "foundry-robot",
        "version": 1,
        "layout": "episode",
        "hz": 16.0,
        "cameras": {camera: {"height": size, "width": size} for camera in INPUTS.cameras},
        "fields": {name: values.shape[1] for name, values in fields.items()},
        "window": WINDOW.model_dump(),
        "episodes": episodes,
        "windows": total,
    }
    if seed == 0:  # optional in the format
        info["lengths"] = lengths
    (folder / "dataset.json").write_text(json.dumps(info))
    compute_statistics(windows, past=WINDOW.past).save(folder / "stats.json")
    return folder


def make_text(folder: Path, *, rows: int = 50, context: int = 15, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 60, size=(rows, context + 1)).astype(np.uint16)
    write_shards(
        folder, ((f"t{seed}-{i}", {"tokens.npy": npy(row)}) for i, row in enumerate(tokens)), 16
    )
    info = {
        "format": "foundry-text",
        "version": 1,
        "context": context,
        "eos_id": 0,
        "vocab_size": 258,
        "sequences": rows,
    }
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def make_captions(folder: Path, *, samples: int = 30, seed: int = 0, size: int = 16) -> Path:
    write_shards(
        folder,
        (
            (
                f"c{seed}-{i}",
                {
                    "front.jpg": encode_jpeg(picture(i, size), 95),
                    "wrist.jpg": encode_jpeg(picture(i + 7777, size), 95),
                    "txt": b"a picture of " + b"x" * (i % 9),
                    "json": b"{}",
                },
            )
            for i in range(samples)
        ),
        8,
    )
    (folder / "dataset.json").write_text(json.dumps({"format": "foundry-captions", "version": 1}))
    return folder
