"""Samples per second of the loader against two plain pipelines over the same bytes, in one run.

    python benchmarks/loading_speed.py [--seconds 5] [--workers 0 1 2] [--only robot]

What is compared: everything between a folder of tars and a shuffled batch of tensors that a model
can take. The three make the same batch, pixel for pixel and with the same transforms of the
numbers: uint8 images, normalised relative actions with their mask, proprioception, tokens.

foundry: this loader; digests are checked, decoded images are not cached unless a row says so.
webdataset: WebDataset(tars) → shuffle → decode("rgb8") → arrays → batch, as in its manual.
torch: a map-style Dataset that finds members by a tarfile index, and reads with PIL and np.load,
    only what the model takes.

Robot: a model that takes 4 cameras of 256 x 256 and windows of 16 steps, from samples in the
published layout. "published": 6 cameras at t-1 and t0 are stored, as LBM's shards have them, and a
plain pipeline decodes what is stored. "all used": only the 4 images that the model takes are
stored, so that everybody decodes the same JPEGs (to the same pixels: no reduced DCT, no fast
upsampling). "episodes": our own layout of the same windows.

Rates are per process: divide by workers for a rate per core. CPU seconds of the consuming process
are measured too, since wall time on a shared machine says little; only with 0 workers do they hold
all the work. Memory: anonymous memory of the process after a tenth of an epoch and after all of it.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image
from rich.console import Console
from rich.table import Table
from rows import Row, add_rows_argument, write_rows

from foundry_core.data.config import WindowConfig
from foundry_core.data.images import encode_jpeg
from foundry_core.data.inspection.recompute import dataset_statistics
from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import (
    CaptionData,
    DataConfig,
    LoaderResources,
    RobotData,
    TextData,
)
from foundry_core.data.loading.text import collate_text
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import IMAGE, OBS
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.data.robot.transforms import collate_robot
from foundry_core.data.shards.write import ShardFolderWriter, ShardSample
from foundry_core.data.text.tokenizer import Tokenizer

STORED = ("scene_right", "scene_left", *(f"wrist_{a}_{b}" for a in ("left", "right") for b in "ab"))
CAMERAS = STORED[:4]
INPUTS = RobotInputs(cameras=CAMERAS, horizon=15)
WINDOW = WindowConfig(past=1, future=14, max_padding_left=3, max_padding_right=12)
TOKENS_PER_IMAGE = 64
BATCH = 16
ROW = 2049


def write_shards(folder: Path, samples: Iterable[ShardSample], samples_per_shard: int) -> None:
    writer = ShardFolderWriter(folder, samples_per_shard)
    for key, members in samples:
        writer.add(key, members)
    writer.close()


class Bench:
    """Data on disk, made once."""

    def __init__(self, root: Path, episodes: int) -> None:
        self.root = root
        self.windows = episodes * 45
        self.tokenizer = Tokenizer.train(["x"], 258)
        self.tokenizer.add_special(IMAGE)
        self.tokenizer.add_special(OBS)
        rng = np.random.default_rng(0)
        self.pool = [encode_jpeg(_scene(rng, 256), 95) for _ in range(64)]
        self._robot(rng, episodes)
        write_shards(root / "captions", (self._caption(i) for i in range(2000)), 500)
        (root / "captions" / "dataset.json").write_text("{}")
        rows = rng.integers(0, 250, size=(4000, ROW)).astype(np.uint16)
        write_shards(
            root / "text",
            ((f"t{i}", {"tokens.npy": _npy(row)}) for i, row in enumerate(rows)),
            1000,
        )
        info = {"context": ROW - 1, "eos_id": 0, "vocab_size": 258}
        (root / "text" / "dataset.json").write_text(json.dumps(info))
        self.normalizer = Normalizer.from_statistics(
            dataset_statistics(root / "episodes"), INPUTS.fields
        )

    def _caption(self, number: int) -> tuple[str, dict[str, bytes]]:
        text = b"the drawer is left of the hand and the handle points to the door"
        return f"c{number}", {"jpg": self.pool[number % 64], "txt": text, "json": b"{}"}

    def _robot(self, rng: np.random.Generator, episodes: int) -> None:
        """The same windows twice: as whole episodes, and cut into the published layout."""
        whole, lean, full, length = [], [], [], 60
        for episode in range(episodes):
            fields = _fields(rng, length)
            jpg = {(c, t): self.pool[rng.integers(64)] for c in STORED for t in range(length)}
            words = json.dumps({"original": [f"open drawer {episode}"]}).encode()
            members = {f"{c}_{t:06d}.jpg": data for (c, t), data in jpg.items()}
            members["lowdim.npz"] = _npz(fields)
            members["metadata.json"] = json.dumps({"length": length}).encode()
            members["language_instructions.json"] = words
            whole.append((f"e{episode}", members))
            for t in range(1, length - 14):
                window = {name: values[t - 1 : t + 15] for name, values in fields.items()}
                window["past_mask"] = np.arange(16) < 1
                window["future_mask"] = ~window["past_mask"]
                sample = {"lowdim.npz": _npz(window), "language_instructions.json": words}
                sample["metadata.json"] = json.dumps({"anchor_relative_idx": 1}).encode()
                used = {f"{c}_t0.jpg": jpg[c, t] for c in CAMERAS}
                more = {f"{c}_t{s}.jpg": jpg[c, t + s] for c in STORED for s in (-1, 0)}
                key = f"e{episode}-{t}"
                lean.append((key, sample | used))
                full.append((key, sample | more))
        write_shards(self.root / "episodes", whole, 4)
        for name, samples in (("all used", lean), ("published", full)):
            write_shards(self.root / name, samples, 200)
            (self.root / name / "dataset.json").write_text('{"layout": "sample"}')
        info = {"cameras": {camera: {} for camera in STORED}, "window": WINDOW.model_dump()}
        (self.root / "episodes" / "dataset.json").write_text(
            json.dumps(info | {"layout": "episode"})
        )

    def loader(self, kind: str, workers: int, cache: int = 0) -> Iterator[dict]:
        if kind in ("captions", "text"):
            data = CaptionData if kind == "captions" else TextData
            config, name, folder = DataConfig(**{kind: data(batch_size=BATCH)}), kind, kind
        else:
            config = DataConfig(robot=RobotData(batch_size=BATCH, inputs=INPUTS))
            name, folder = "robot", kind.removeprefix("robot, ")
        loader = build_loader(
            config,
            {name: {"data": self.root / folder}},
            seed=0,
            tokenizer=self.tokenizer,
            tokens_per_image=TOKENS_PER_IMAGE,
            normalizer=self.normalizer,
            resources=LoaderResources(workers=workers, cache_bytes=cache),
        )
        return (batch[name] for batch in loader.batches())

    def transform(self):
        from foundry_core.data.robot.transforms import RobotTransform

        return RobotTransform(INPUTS, self.normalizer, self.tokenizer, TOKENS_PER_IMAGE)


def _scene(rng: np.random.Generator, size: int) -> np.ndarray:
    """Gradients, boxes and sensor noise: JPEG sizes of rendered scenes."""
    y, x = np.mgrid[0:size, 0:size]
    image = np.stack([x / 2, y / 2, (x + y) / 4], axis=-1) + rng.normal(0, 2, (size, size, 3))
    for _ in range(12):
        top, left = rng.integers(0, size - 40, 2)
        image[top : top + rng.integers(8, 40), left : left + rng.integers(8, 40)] = rng.integers(
            0, 255, 3
        )
    return np.clip(image, 0, 255).astype(np.uint8)


def _fields(rng: np.random.Generator, length: int) -> dict[str, np.ndarray]:
    """12 arrays, as many as two measured and commanded arms have."""
    fields = {}
    for kind in ("actual", "action"):
        for arm in ("right", "left"):
            pose = f"robot__{kind}__poses__{arm}::panda"
            fields[f"{pose}__xyz"] = rng.normal(size=(length, 3)).cumsum(0) * 0.01
            fields[f"{pose}__rot_6d"] = rng.normal(size=(length, 6))
            fields[f"robot__{kind}__grippers__{arm}::panda_hand"] = rng.choice(
                [0, 0.1], size=(length, 1)
            )
    return fields


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _robot_sample(transform, images: list[np.ndarray], lowdim, words: dict) -> dict:
    """The low-dimensional work that any pipeline has to do per sample, with our own transforms."""
    arrays = {name: lowdim[name] for name in lowdim}
    measured = {name: arrays[name][1] for name in transform.measured_fields}
    targets = {name: arrays[name][1:16] for name in transform.target_fields}
    actions, known = transform.actions(targets, measured)
    real = (arrays["past_mask"] | arrays["future_mask"])[1:16, None] & known
    history = {name: value[None] for name, value in measured.items()}
    return {
        "images": np.stack(images).transpose(0, 3, 1, 2),
        "tokens": transform.tokens(words["original"][0])[0],
        "proprio": transform.proprio(history, measured),
        "actions": actions,
        "action_mask": real,
    }


def _text_sample(tokens: np.ndarray) -> dict:
    return {"tokens": tokens}


class Webdataset:
    """The pipeline of webdataset's manual."""

    def __init__(self, bench: Bench, kind: str, workers: int) -> None:
        self.bench, self.kind, self.workers = bench, kind, workers
        self.transform = bench.transform()

    def __iter__(self) -> Iterator[dict]:
        folder = self.bench.root / self.kind.removeprefix("robot, ")
        tars = sorted(str(path) for path in folder.glob("*.tar"))
        pipeline = webdataset.WebDataset(tars, shardshuffle=100, empty_check=False)
        pipeline = pipeline.repeat().shuffle(200).decode("rgb8").map(self.sample)
        pipeline = pipeline.batched(BATCH, collation_fn=self.collate)
        if not self.workers:
            return iter(pipeline)
        return iter(webdataset.WebLoader(pipeline, batch_size=None, num_workers=self.workers))

    def sample(self, found: dict) -> dict:
        if self.kind == "text":
            return _text_sample(found["tokens.npy"])
        if self.kind == "captions":
            tokens, targets, _ = self.transform.prompts.caption(found["txt"], 1, 128)
            return {"images": found["jpg"], "tokens": np.array(tokens), "targets": targets}
        images = [found[f"{camera}_t0.jpg"] for camera in CAMERAS]
        words = found["language_instructions.json"]
        return _robot_sample(self.transform, images, found["lowdim.npz"], words)

    def collate(self, samples: list[dict]) -> dict:
        """webdataset adds __key__ to what `map` returns."""
        return _collate(
            self.kind, [{k: v for k, v in s.items() if not k.startswith("__")} for s in samples]
        )


class MapStyle(torch.utils.data.Dataset):
    """tarfile offsets, PIL, np.load, default shuffling."""

    def __init__(self, bench: Bench, kind: str) -> None:
        self.kind, self.transform = kind, bench.transform()
        folder = bench.root / kind.removeprefix("robot, ")
        self.samples: dict[str, dict[str, tuple[Path, int, int]]] = {}
        for path in sorted(folder.glob("*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    key, _, extension = member.name.partition(".")
                    where = (path, member.offset_data, member.size)
                    self.samples.setdefault(key, {})[extension] = where
        self.keys = list(self.samples)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict:
        found = self.samples[self.keys[index]]

        def read(extension: str) -> bytes:
            path, offset, size = found[extension]
            with path.open("rb") as stream:
                stream.seek(offset)
                return stream.read(size)

        def image(extension: str) -> np.ndarray:
            return np.asarray(Image.open(io.BytesIO(read(extension))).convert("RGB"))

        if self.kind == "text":
            return _text_sample(np.load(io.BytesIO(read("tokens.npy"))))
        if self.kind == "captions":
            tokens, targets, _ = self.transform.prompts.caption(read("txt").decode(), 1, 128)
            return {"images": image("jpg"), "tokens": np.array(tokens), "targets": targets}
        words = json.loads(read("language_instructions.json"))
        images = [image(f"{camera}_t0.jpg") for camera in CAMERAS]
        return _robot_sample(self.transform, images, np.load(io.BytesIO(read("lowdim.npz"))), words)

    def batches(self, workers: int) -> Iterator[dict]:
        while True:
            yield from torch.utils.data.DataLoader(
                self,
                batch_size=BATCH,
                shuffle=True,
                drop_last=True,
                num_workers=workers,
                collate_fn=lambda samples: _collate(self.kind, samples),
            )


def _collate(kind: str, samples: list[dict]) -> dict:
    if kind == "text":
        arrays = collate_text(samples, 0)
    elif kind == "captions":
        tokens = np.stack([s["tokens"] for s in samples])
        images = np.stack([s["images"] for s in samples]).transpose(0, 3, 1, 2)[:, None]
        arrays = {"images": images, "tokens": tokens}
    else:
        arrays = collate_robot(samples, 1, 8)
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}


def rate(make: Callable[[], Iterator[dict]], seconds: float, warm: int) -> tuple[float, float]:
    """(samples per second of wall time, per second of CPU time in this process)."""
    batches = iter(make())
    for _ in range(warm):
        next(batches)
    wall, cpu, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < seconds:
        done += len(next(batches)["tokens"])
    spent = time.process_time() - cpu
    speed = done / (time.perf_counter() - wall)
    del batches
    return speed, done / spent


def memory_over_an_epoch(bench: Bench) -> dict[str, float]:
    """Private memory in MiB after a tenth of an epoch of robot samples, and after the whole."""
    batches = bench.loader("robot, published", 0)
    total = bench.windows // BATCH
    after = {}
    for number in range(1, total + 1):
        next(batches)
        if number in (total // 10, total):
            after["tenth" if number < total else "whole"] = _private_mib()
    return after


def _private_mib() -> float:
    """Anonymous memory: maps of the tars are the page cache's, to be dropped when it likes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (kib,) = (int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
    return round(kib / 1024, 1)


def measure(bench: Bench, seconds: float, workers: list[int], only: str) -> dict:
    results: dict = {}
    kinds = ("robot, published", "robot, all used", "captions", "text")
    for kind in [kind for kind in kinds if only in kind]:
        for count in workers:
            row = {
                "foundry": rate(lambda k=kind, n=count: bench.loader(k, n), seconds, 4),
                "webdataset": rate(lambda k=kind, n=count: Webdataset(bench, k, n), seconds, 4),
                "torch": rate(lambda k=kind, n=count: MapStyle(bench, k).batches(n), seconds, 4),
            }
            results[f"{kind}, {count} workers"] = row
    if only not in "robot, episodes":
        return results
    results["robot, episodes, 0 workers"] = {
        "foundry": rate(lambda: bench.loader("robot, episodes", 0), seconds, 20)
    }
    results["robot, episodes, cached, 0 workers"] = {
        "foundry": rate(
            lambda: bench.loader("robot, episodes", 0, 2 << 30), seconds, bench.windows // BATCH + 1
        )
    }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="see the module's docstring")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--only", default="", help="part of a row's name, e.g. robot")
    parser.add_argument("--json", action="store_true")
    add_rows_argument(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), episodes=options.episodes)
        results = measure(bench, options.seconds, options.workers, options.only)
        memory = memory_over_an_epoch(bench)
    write_rows(
        options.rows,
        [
            Row(
                what=f"loading: {name}",
                unit="samples per CPU s",
                ours=row["foundry"][1],
                beside=beside,
                theirs=row[other][1],
                more=True,
            )
            for name, row in results.items()
            for other, beside in (("webdataset", "webdataset"), ("torch", "torch, map-style"))
            if other in row and name.endswith(" 0 workers")
        ],
    )
    if options.json:
        print(json.dumps({"rates": results, "private_mib": memory}, indent=2))
        return
    table = Table(title="samples/s (wall | per CPU second of the consumer)")
    for heading in ("what", "foundry", "webdataset", "torch", "x webdataset", "x torch", "x CPU"):
        table.add_column(heading)
    for name, row in results.items():
        ours = row["foundry"][0]
        ratios = [f"{ours / row[o][0]:.2f}" if o in row else "" for o in ("webdataset", "torch")]
        alone = "webdataset" in row and name.endswith(" 0 workers")
        ratios.append(f"{row['foundry'][1] / row['webdataset'][1]:.2f}" if alone else "")
        cells = [
            f"{row[o][0]:.0f} | {row[o][1]:.0f}" if o in row else ""
            for o in ("foundry", "webdataset", "torch")
        ]
        table.add_row(name, *cells, *ratios)
    console = Console(width=140)
    console.print(table)
    console.print("x CPU: webdataset's CPU seconds per sample over ours, same process")
    text = results.get(f"text, {options.workers[0]} workers")
    if text:
        console.print(f"text: {text['foundry'][0] * (ROW - 1) / 1e6:.1f} million tokens/s")
    console.print(f"private memory over an epoch of robot samples: {memory} MiB")


if __name__ == "__main__":
    main()
