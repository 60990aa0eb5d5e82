"""The loaders that `loading_scale.py` compares: each yields how many rows a batch has, for ever.

What they read, how, and what of it is verified: loading_scale.py's own page.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

ROW, BATCH, ROWS, EPISODES, LENGTH = 2049, 16, 50_000, 10_000, 20
CAMERAS = ("front", "wrist")
SEED = 0


def foundry(folder: Path, kind: str, options: argparse.Namespace) -> Iterator[int]:
    """Rows of each batch."""
    from benchmarks.loading_speed import TOKENS_PER_IMAGE
    from foundry_core.data.loading.build import build_loader
    from foundry_core.data.loading.config import DataConfig, LoaderResources, RobotData, TextData
    from foundry_core.data.robot.normalize import Normalizer
    from foundry_core.data.robot.transform_config import RobotInputs
    from foundry_core.data.text.tokenizer import Tokenizer

    inputs = RobotInputs(cameras=CAMERAS, horizon=15)
    normalizer = None
    if kind == "robot":
        normalizer = Normalizer.load(folder / "normalizer.json")
    config = {
        "text": DataConfig(text=TextData(batch_size=BATCH)),
        "robot": DataConfig(robot=RobotData(batch_size=BATCH, inputs=inputs)),
    }[kind]
    loader = build_loader(
        config,
        {kind: {"data": folder}},
        seed=SEED,
        tokenizer=Tokenizer.load(folder / "tokenizer"),
        tokens_per_image=TOKENS_PER_IMAGE,
        normalizer=normalizer,
        resources=LoaderResources(
            workers=options.workers, cache_bytes=0, window_bytes=options.window_mib << 20
        ),
    )
    for batch in loader.batches():
        yield len(batch[kind]["tokens"])


def webdataset(folder: Path, kind: str, options: argparse.Namespace) -> Iterator[int]:
    import webdataset as wds

    tars = sorted(str(path) for path in folder.glob("*.tar"))
    pipeline = wds.WebDataset(tars, shardshuffle=100, empty_check=False).repeat()
    if kind == "robot":
        pipeline = pipeline.decode("rgb8").compose(_Windows(folder)).shuffle(1000)
        for batch in pipeline.batched(BATCH, collation_fn=_robot_rows, partial=False):
            yield len(batch["tokens"])
    pipeline = pipeline.shuffle(1000).decode().to_tuple("tokens.npy").batched(BATCH, partial=False)
    for (rows,) in pipeline:
        yield len(_segments(np.stack(rows))["tokens"])


class _Windows:
    """Episodes → their windows, with our own transforms of the numbers. All pictures of an episode
    are decoded once, as they come."""

    def __init__(self, folder: Path) -> None:
        from benchmarks.loading_speed import TOKENS_PER_IMAGE
        from foundry_core.data.robot.normalize import Normalizer
        from foundry_core.data.robot.transform_config import RobotInputs
        from foundry_core.data.robot.transforms import RobotTransform
        from foundry_core.data.text.tokenizer import Tokenizer

        self._transform = RobotTransform(
            RobotInputs(cameras=CAMERAS, horizon=15),
            Normalizer.load(folder / "normalizer.json"),
            Tokenizer.load(folder / "tokenizer"),
            TOKENS_PER_IMAGE,
        )

    def __call__(self, episodes: Iterator[dict]) -> Iterator[dict]:
        from benchmarks.loading_speed import WINDOW, _robot_sample
        from foundry_core.data.robot.windows import anchors, cut_windows

        steps = anchors(LENGTH, WINDOW)
        for found in episodes:
            numbers = {name: found["lowdim.npz"][name] for name in found["lowdim.npz"]}
            cut, past, future = cut_windows(numbers, steps, WINDOW)
            for i, step in enumerate(steps.tolist()):
                window = {name: values[i] for name, values in cut.items()}
                window |= {"past_mask": past[i], "future_mask": future[i]}
                images = [found[f"{camera}_{step:06d}.jpg"] for camera in CAMERAS]
                words = found["language_instructions.json"]
                yield _robot_sample(self._transform, images, window, words)


def _robot_rows(samples: list[dict]) -> dict:
    from benchmarks.loading_speed import _collate

    return _collate("robot", samples)


def energon(folder: Path, kind: str, options: argparse.Namespace) -> Iterator[int]:
    import io

    from megatron.energon import (
        Cooker,
        DefaultTaskEncoder,
        WorkerConfig,
        basic_sample_keys,
        get_loader,
        get_train_dataset,
        stateless,
    )
    from megatron.energon.flavors import CrudeSample

    @stateless
    def cook(sample: dict) -> CrudeSample:
        tokens = np.load(io.BytesIO(sample["tokens.npy"]))
        return CrudeSample(basic_sample_keys(sample) | {"tokens": tokens})

    class Rows(DefaultTaskEncoder):
        decoder = None
        cookers = (Cooker(cook),)

        def batch(self, samples):
            return _segments(np.stack([sample["tokens"] for sample in samples]))

    dataset = get_train_dataset(
        folder,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=BATCH,
        shuffle_buffer_size=1000,
        max_samples_per_sequence=100,
        task_encoder=Rows(),
    )
    for batch in get_loader(dataset):
        yield len(batch["tokens"])


def prepare_energon(folder: Path, _: int) -> None:
    """As `energon prepare` does."""
    from megatron.energon.flavors.webdataset import BaseWebdatasetFactory

    tars = sorted(path.name for path in folder.glob("*.tar"))
    from megatron.energon.epathlib import EPath

    BaseWebdatasetFactory.prepare_dataset(
        EPath(folder),
        tars,
        split_parts_ratio=[("train", 1.0)],
        workers=2,
        progress_fn=lambda i, n: i,
    )
    (folder / ".nv-meta" / "dataset.yaml").write_text(
        "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
    )


def litdata(folder: Path, kind: str, options: argparse.Namespace) -> Iterator[int]:
    from litdata import StreamingDataLoader, StreamingDataset

    while True:
        dataset = StreamingDataset(str(folder / "litdata"), shuffle=True, seed=SEED)
        loader = StreamingDataLoader(
            dataset, batch_size=BATCH, num_workers=0, drop_last=True, collate_fn=_litdata_rows
        )
        for batch in loader:
            yield len(batch["tokens"])


def _litdata_rows(rows: list) -> dict:
    return _segments(np.stack([np.asarray(row, dtype=np.uint16) for row in rows]))


def prepare_litdata(folder: Path, shards: int) -> None:
    """Its own format."""
    from litdata.streaming import Cache

    rng = np.random.default_rng(SEED)
    pool = [rng.integers(1, 250, ROW).astype(np.uint16) for _ in range(64)]
    cache = Cache(str(folder / "litdata"), chunk_size=ROWS // shards)
    for row in range(ROWS // shards * shards):
        cache[row] = pool[row % 64]
    cache.done()
    cache.merge()


def _segments(tokens: np.ndarray) -> dict:
    from foundry_core.data.loading.text import collate_text

    found = collate_text([{"tokens": row} for row in tokens], 0)
    return {name: torch.from_numpy(value) for name, value in found.items()}


READERS = {"foundry": foundry, "webdataset": webdataset, "energon": energon, "litdata": litdata}
PREPARED = {"energon": prepare_energon, "litdata": prepare_litdata}
"""Readers of packages that are not ours, and what first lays out files of their own."""
