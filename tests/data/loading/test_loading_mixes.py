"""Mixes as they arrive in batches: exact shares, whole epochs, datasets that differ."""

import io
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from foundry_core.data.inspection.recompute import dataset_statistics
from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import (
    CaptionData,
    DataConfig,
    LoaderResources,
    RobotData,
    TextData,
)
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.statistics.dataset import merge_report, merge_statistics
from foundry_core.errors import FoundryError
from tests.synthetic import GRIPPER, INPUTS, make_robot, npz, write_shards


@pytest.fixture
def make(datasets, tokenizer, normalizer):
    def build(config: DataConfig, sources: dict | None = None, workers: int = 0, **options):
        return build_loader(
            config,
            sources or {name: datasets[name] for name in config.modalities},
            seed=4,
            tokenizer=tokenizer,
            tokens_per_image=2,
            normalizer=options.pop("normalizer", normalizer),
            resources=LoaderResources(workers=workers, prefetch=2),
        )

    return build


def owners(loader, batch) -> dict[str, list[str]]:
    """Dataset of every row, per modality."""
    found = {}
    for name, part in batch.items():
        modality = loader.modalities[name]
        which = np.searchsorted(modality.first_ids, part["sample_ids"].numpy(), side="right") - 1
        found[name] = [modality.labels[i] for i in which]
    return found


def test_weight_zero_means_never_in_any_modality(make) -> None:
    config = DataConfig(
        text=TextData(batch_size=8, weights={"web": 0.0, "docs": 1.0}),
        robot=RobotData(batch_size=8, inputs=INPUTS, weights={"lever": 1.0, "door": 0.0}),
    )
    loader = make(config)
    seen = Counter()
    for step in range(40):
        for name, labels in owners(loader, loader.batch(step)).items():
            seen.update((name, label) for label in labels)
    assert seen == {("text", "docs"): 320, ("robot", "lever"): 320}
    assert "text.web.samples" not in loader.report()


def test_shares_hold_at_every_prefix_of_what_arrives(make) -> None:
    loader = make(DataConfig(text=TextData(batch_size=16, weights={"web": 0.9, "docs": 0.1})))
    rows: list[str] = []
    for step in range(200):
        rows += owners(loader, loader.batch(step))["text"]
    first = np.array(rows) == "web"
    n = np.arange(1, len(first) + 1)
    assert np.abs(np.cumsum(first) - 0.9 * n).max() < 1


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (4, 0), (2, 1)])
def test_all_ranks_together_see_every_sample_of_every_epoch_once(make, ranks, workers) -> None:
    config = DataConfig(
        text=TextData(batch_size=20),
        captions=CaptionData(batch_size=4),
        robot=RobotData(batch_size=8, inputs=INPUTS),
    )
    loaders = [make(config, workers=workers) for _ in range(ranks)]
    lengths = {name: m.order.epoch_length for name, m in loaders[0].modalities.items()}
    assert lengths["text"] == 100 and lengths["captions"] == 30
    steps = -(-2 * lengths["robot"] // 8)
    iterators = [loader.batches(0, rank, ranks) for rank, loader in enumerate(loaders)]
    ids: dict[str, list[int]] = {name: [] for name in lengths}
    for _ in range(steps):
        for batch in [next(iterator) for iterator in iterators]:
            for name in lengths:
                ids[name] += batch[name]["sample_ids"].tolist()
    for iterator in iterators:
        iterator.close()
    for name, length in lengths.items():
        epochs = len(ids[name]) // length
        assert epochs >= 2
        for epoch in range(epochs):
            part = ids[name][epoch * length : (epoch + 1) * length]
            assert sorted(part) == list(range(length)), (name, epoch)
        assert ids[name][:length] != ids[name][length : 2 * length]


@pytest.fixture
def differing(tmp_path: Path) -> dict[str, Path]:
    """Two datasets: the second has no gripper and wider windows."""
    whole = make_robot(tmp_path / "whole", episodes=3)
    source = make_robot(tmp_path / "source", episodes=3, seed=1)
    shards, samples = ShardSet(source), []
    for number in range(len(shards)):
        members = {k: bytes(v) for k, v in shards.members(number).items()}
        arrays = np.load(io.BytesIO(members["lowdim.npz"]))
        kept = {name: arrays[name] for name in arrays.files if "grippers" not in name}
        samples.append((shards.key(number), members | {"lowdim.npz": npz(kept)}))
    bare = tmp_path / "bare"
    write_shards(bare, samples, 2)
    info = json.loads((source / "dataset.json").read_text())
    wider = {"past": 2, "max_padding_left": 2, "future": 9, "max_padding_right": 9}
    del info["windows"]
    (bare / "dataset.json").write_text(json.dumps(info | {"window": info["window"] | wider}))
    dataset_statistics(bare).save(bare / "stats.json")
    dataset_statistics(whole).save(whole / "stats.json")
    return {"whole": whole, "bare": bare}


def test_datasets_with_other_fields_and_horizons_share_a_batch(make, differing) -> None:
    parts = {label: dataset_statistics(folder) for label, folder in differing.items()}
    report = merge_report(parts, "count")
    assert report["partial_fields"][GRIPPER.format("action")]["missing"] == ["bare"]
    assert len(report["horizons"]) > 3
    normalizer = Normalizer.from_statistics(merge_statistics(parts), INPUTS.fields)
    sources = {"robot": differing}
    strict = RobotData(batch_size=8, inputs=INPUTS, weights={"whole": 0.5, "bare": 0.5})
    with pytest.raises(FoundryError, match=r"bare' lacks the field .*grippers"):
        make(DataConfig(robot=strict), sources, normalizer=normalizer).batch(0)
    masked = strict.model_copy(update={"missing_fields": "mask"})
    loader = make(DataConfig(robot=masked), sources, normalizer=normalizer)
    for batch in islice(loader.batches(), 6):
        robot = batch["robot"]
        labels = np.array(owners(loader, batch)["robot"])
        assert (labels == "bare").sum() == 4
        known = robot["action_mask"].any(dim=1).numpy()
        assert known[labels == "whole"].all()
        assert known[labels == "bare", :9].all() and not known[labels == "bare", 9:].any()
        for name in ("actions", "proprio"):
            absent = robot[name].numpy()[labels == "bare", :, 9:]
            assert absent.size and not absent.any()
            assert robot[name].numpy()[labels == "whole", :, 9:].any()
