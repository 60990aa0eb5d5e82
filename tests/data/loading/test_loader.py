"""Batches: contents, resume on any ranks and workers, exact mixes, corrupt shards."""

import itertools
import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from foundry_core.data.images import decode_image
from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import (
    CaptionData,
    DataConfig,
    LoaderResources,
    RobotData,
    TextData,
    UnreadableConfig,
)
from foundry_core.data.loading.loader import Loader, MixedBatch
from foundry_core.data.loading.shards import CheckedShards, UnreadableSample
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import IMAGE, OBS
from foundry_core.data.robot.transform_config import Augment, ImageInput, RobotInputs
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from tests.synthetic import INPUTS, make_text

Make = Callable[..., Loader]
MIXED = DataConfig(
    text=TextData(batch_size=4, weights={"web": 0.9, "docs": 0.1}),
    captions=CaptionData(batch_size=4),
    robot=RobotData(batch_size=8, inputs=INPUTS, augment=Augment(shift=2, brightness=0.2)),
)


@pytest.fixture
def make(datasets: dict, tokenizer: Tokenizer, normalizer: Normalizer) -> Make:
    def build(config: DataConfig = MIXED, sources: dict | None = None, **options) -> Loader:
        sources = sources or {name: datasets[name] for name in config.modalities}
        workers = options.pop("workers", 0)
        return build_loader(
            config,
            sources,
            seed=options.pop("seed", 7),
            tokenizer=tokenizer,
            tokens_per_image=2,
            normalizer=normalizer,
            resources=LoaderResources(workers=workers, prefetch=2, cache_bytes=1 << 20),
            **options,
        )

    return build


def equal(one: MixedBatch, two: MixedBatch) -> bool:
    return one.keys() == two.keys() and all(
        one[m].keys() == two[m].keys() and all(torch.equal(one[m][k], two[m][k]) for k in one[m])
        for m in one
    )


def joined(parts: list[MixedBatch]) -> MixedBatch:
    """Ranks' parts as the global batch; token rows padded to the longest of them."""
    whole: MixedBatch = {}
    for modality in parts[0]:
        whole[modality] = {}
        for name in parts[0][modality]:
            tensors = [part[modality][name] for part in parts]
            if name in ("tokens", "token_mask", "target_mask") and modality != "text":
                length = max(t.shape[1] for t in tensors)
                fill = 1 if name == "tokens" else 0
                tensors = [
                    torch.nn.functional.pad(t, (0, length - t.shape[1]), value=fill)
                    for t in tensors
                ]
            whole[modality][name] = torch.cat(tensors)
    return whole


def test_batches_have_the_agreed_shapes(make: Make, tokenizer: Tokenizer) -> None:
    batch = make().batch(0)
    text, captions, robot = batch["text"], batch["captions"], batch["robot"]
    assert text["tokens"].shape == (4, 16) and text["tokens"].dtype == torch.int64
    assert text["segments"].shape == (4, 16) and text["segments"].dtype == torch.int32

    assert captions["images"].shape == (4, 2, 3, 16, 16)
    assert captions["images"].dtype == torch.uint8
    image, obs = tokenizer.token_id(IMAGE), tokenizer.token_id(OBS)
    assert ((captions["tokens"] == image).sum(1) == 4).all()
    assert captions["target_mask"].dtype == torch.bool
    for tokens, mask in zip(captions["tokens"], captions["target_mask"], strict=True):
        said = tokenizer.decode(tokens[mask].tolist(), skip_special=True)
        assert said.startswith("a picture of")
        assert tokens[mask][-1] == tokenizer.eos_id

    assert robot["images"].shape == (8, 2, 3, 16, 16)
    assert robot["proprio"].shape == (8, 1, 10) and robot["proprio"].dtype == torch.float32
    assert robot["actions"].shape == (8, 8, 10) and robot["actions"].dtype == torch.float32
    assert robot["action_mask"].shape == (8, 8, 10)
    assert robot["actions"].abs().max() <= 1.5
    for tokens, mask in zip(robot["tokens"], robot["token_mask"], strict=True):
        real = tokens[mask]
        assert (real[:4] == image).all() and real[-1] == obs
        assert (tokens[~mask] == tokenizer.pad_id).all()
    assert robot["tokens"].shape[1] % 8 == 0
    assert len(set(robot["sample_ids"].tolist())) == 8
    assert robot["draw_ids"].tolist() == list(range(8))
    assert make().batch(3, rank=1, world=2)["robot"]["draw_ids"].tolist() == [28, 29, 30, 31]


def test_segments_follow_the_end_of_text(make: Make) -> None:
    config = DataConfig(text=TextData(batch_size=16))
    batch = make(config).batch(0)["text"]
    for tokens, segments in zip(batch["tokens"], batch["segments"], strict=True):
        current = 0
        for token, segment in zip(tokens.tolist(), segments.tolist(), strict=True):
            assert segment == current
            current += token == 0


def test_robot_samples_are_what_the_shards_hold(
    make: Make, datasets: dict, normalizer: Normalizer
) -> None:
    """Every window once per epoch, with the images of its own step and its own targets."""
    config = DataConfig(robot=RobotData(batch_size=8, inputs=INPUTS, instruction="original"))
    sources = {"robot": {"lever": datasets["robot"]["lever"]}}
    loader = make(config, sources, train=False)
    dataset = loader.modalities["robot"].datasets[0]
    shards = ShardSet(datasets["robot"]["lever"])
    index = 0
    for episode in range(len(shards)):
        lowdim = np.load(_file(shards, episode, "lowdim.npz"))
        xyz = lowdim["robot__actual__poses__right::panda__xyz"]
        gripper = lowdim["robot__action__grippers__right::panda_hand"]
        for anchor in range(len(xyz)):
            sample = dataset.read(index, sample_key=0)
            for camera, image in zip(INPUTS.cameras, sample["images"], strict=True):
                stored = decode_image(shards.member(episode, f"{camera}_{anchor:06d}.jpg"))
                assert np.array_equal(image.transpose(1, 2, 0), stored)
            raw = normalizer.denormalize(
                "robot__actual__poses__right::panda__xyz", sample["proprio"][:, :3]
            )
            clipped = np.abs(sample["proprio"][0, :3]) >= 1.5
            np.testing.assert_allclose(raw[0][~clipped], xyz[anchor][~clipped], atol=1e-5)
            real = sample["action_mask"][:, 0]
            assert real.sum() == min(8, len(xyz) - anchor)
            opened = normalizer.denormalize(
                "robot__action__grippers__right::panda_hand", sample["actions"][:, 9:]
            )
            np.testing.assert_allclose(opened[real], gripper[anchor : anchor + 8], atol=1e-6)
            assert not sample["actions"][~real].any()
            index += 1
    assert index == len(dataset)


def _file(shards: ShardSet, sample: int, extension: str):
    import io

    return io.BytesIO(shards.member(sample, extension))


def test_resume_anywhere_on_other_ranks(make: Make) -> None:
    """50 random cases: some ranks up to a step, then others from there, epoch borders included."""
    whole = list(itertools.islice(make().batches(), 70))  # the robot mix has 9 epochs in this
    rng = random.Random(0)
    loader = make()
    for _ in range(50):
        stop = rng.randrange(1, 68)
        before, after = rng.choice([1, 2, 4]), rng.choice([1, 2, 4])
        for step, world in ((stop - 1, before), (stop, after), (stop + 1, after)):
            iterators = [loader.batches(step, rank, world) for rank in range(world)]
            assert equal(joined([next(iterator) for iterator in iterators]), whole[step])


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 1)])
def test_resume_with_other_workers(make: Make, before: int, after: int) -> None:
    whole = list(itertools.islice(make().batches(), 8))
    first = make(workers=before).batches(0)
    parts = list(itertools.islice(first, 5))
    first.close()
    second = make(workers=after)
    rest = second.batches(5)
    parts += list(itertools.islice(rest, 3))
    rest.close()
    assert all(equal(a, b) for a, b in zip(parts, whole, strict=True))
    assert second.report()["robot.lever.samples"] > 0


def test_resuming_at_a_million_costs_less_than_a_second(make: Make) -> None:
    started = time.perf_counter()
    next(make().batches(10**6))
    assert time.perf_counter() - started < 1


def test_an_epoch_over_ranks_holds_every_sample_once(make: Make) -> None:
    config = DataConfig(robot=RobotData(batch_size=8, inputs=INPUTS))
    loader = make(config)
    length = loader.modalities["robot"].order.epoch_length
    ids: list[int] = []
    for step in range(-(-length // 8)):
        for rank in range(4):
            ids += loader.batch(step, rank, 4)["robot"]["sample_ids"].tolist()
    # ranks' parts of one step, joined in rank order, are the draws in order
    assert sorted(ids[:length]) == list(range(length))


def test_mix_is_exact_and_another_seed_is_another_order(make: Make) -> None:
    loader = make()
    for step in range(25):
        loader.batch(step)
    report = loader.report()
    assert (report["text.web.samples"], report["text.docs.samples"]) == (90, 10)
    assert not equal(make(seed=8).batch(0), make(seed=7).batch(0))


def test_augmentation_is_a_function_of_the_sample_and_off_in_validation(make: Make) -> None:
    plain = make(train=False).batch(0)["robot"]["images"]
    assert torch.equal(plain, make(train=False).batch(0)["robot"]["images"])
    augmented = make().batch(0)["robot"]["images"]
    assert torch.equal(augmented, make().batch(0)["robot"]["images"])
    assert not torch.equal(augmented, plain)
    length = make().modalities["robot"].order.epoch_length
    assert length is not None


def test_unreadable_image_stops_or_is_replaced(make: Make, datasets: dict, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(datasets["robot"]["lever"], folder)
    shards = ShardSet(folder)
    for step in (3, 4):
        name = f"front_{step:06d}.jpg"
        index = shards.index(0)
        member = index.positions[f"{index.keys[1]}.{name}"]
        with (folder / "shard_000000.tar").open("r+b") as stream:
            stream.seek(int(index.offsets[member]))
            stream.write(b"\0" * int(index.sizes[member]))
    _restamp(folder)
    sources = {"robot": {"broken": folder}}
    robot = RobotData(batch_size=8, inputs=INPUTS)
    with pytest.raises(UnreadableSample, match=r"front_00000[34].jpg.*shard_000000"):
        for _ in itertools.islice(make(DataConfig(robot=robot), sources).batches(), 20):
            pass
    skipping = DataConfig(robot=robot, unreadable=UnreadableConfig(policy="skip"))
    loader = make(skipping, sources)
    whole = list(itertools.islice(loader.batches(), 20))
    report = loader.report()
    assert report["robot.broken.skipped"] >= 2
    assert report["robot.broken.samples"] == 160
    other = make(skipping, sources)
    for step in reversed(range(20)):
        parts = [other.batch(step, rank, 2) for rank in range(2)]
        assert equal(joined(parts), whole[step])
    bounded = DataConfig(robot=robot, unreadable=UnreadableConfig(policy="skip", max_skips=1))
    with pytest.raises(FoundryError, match="max_skips is 1"):
        for _ in itertools.islice(make(bounded, sources).batches(), 30):
            pass


def _restamp(folder: Path) -> None:
    """The manifest of the shards as they are now: only decoding can notice the damage."""
    import hashlib
    import json

    lines = []
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        data = (folder / f"{entry['shard']}.tar").read_bytes()
        lines.append(json.dumps(entry | {"sha256": hashlib.sha256(data).hexdigest()}))
    (folder / "manifest.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_shard_damaged_under_a_running_training_is_named(
    make: Make, datasets: dict, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "robot"
    shutil.copytree(datasets["robot"]["lever"], folder)
    robot = RobotData(batch_size=8, inputs=INPUTS)
    batches = make(DataConfig(robot=robot), {"robot": {"r": folder}}).batches()
    for _ in range(4):
        next(batches)
    _damage(folder / "shard_000001.tar", damage)
    with pytest.raises(UnreadableSample, match=r"shard_000001.*(sha256|truncated|missing)"):
        for _ in range(20):
            next(batches)
    skip = DataConfig(robot=robot, unreadable=UnreadableConfig(policy="skip", max_skips=10_000))
    runs = [make(skip, {"robot": {"r": folder}}) for _ in range(2)]
    for step in range(5):
        assert equal(runs[0].batch(step), joined([runs[1].batch(step, r, 4) for r in range(4)]))
    assert runs[0].report() == runs[1].report()
    assert runs[0].report()["robot.r.skipped"] > 0


def _damage(path: Path, how: str) -> None:
    if how == "delete":
        path.unlink()
    elif how == "truncate":
        with path.open("r+b") as stream:
            stream.truncate(path.stat().st_size // 2)
    else:
        with path.open("r+b") as stream:
            stream.seek(path.stat().st_size // 3)
            byte = stream.read(1)
            stream.seek(-1, 1)
            stream.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_cached_shard_is_fetched_again(tmp_path: Path, damage: str) -> None:
    make_text(tmp_path / "origin")
    shards = CheckedShards(f"file://{tmp_path / 'origin'}", cache=tmp_path / "cache")
    good = bytes(shards.member(20, "tokens.npy"))
    assert shards.fetched == 1
    _damage(shards.folder / "shard_000001.tar", damage)
    assert bytes(shards.member(20, "tokens.npy")) == good
    assert shards.fetched == 2
    _damage(tmp_path / "origin" / "shard_000001.tar", "flip")
    _damage(shards.folder / "shard_000001.tar", damage)
    with pytest.raises(UnreadableSample, match=r"shard_000001.*sha256"):
        shards.member(20, "tokens.npy")
    fetched = shards.fetched
    with pytest.raises(UnreadableSample, match="shard_000001"):
        shards.member(21, "tokens.npy")
    assert shards.fetched == fetched  # not again for every sample of it


def test_the_remote_cache_stays_bounded(tmp_path: Path) -> None:
    make_text(tmp_path / "origin", rows=200)
    size = (tmp_path / "origin" / "shard_000000.tar").stat().st_size
    shards = CheckedShards(
        f"file://{tmp_path / 'origin'}", cache=tmp_path / "cache", cache_bytes=3 * size
    )
    for sample in range(0, 200, 5):
        shards.member(sample, "tokens.npy")
        assert sum(p.stat().st_size for p in shards.folder.glob("*.tar")) <= 3 * size


def test_user_mistakes_travel_through_workers_as_they_are(make: Make, tmp_path: Path) -> None:
    folder = make_text(tmp_path / "text")
    loader = make(DataConfig(text=TextData(batch_size=8)), {"text": {"t": folder}}, workers=1)
    _damage(folder / "shard_000000.tar", "flip")
    batches = loader.batches()
    with pytest.raises(UnreadableSample, match=r"^shard '.*shard_000000.tar'"):
        for _ in range(20):
            next(batches)
    batches.close()


def test_batches_do_not_depend_on_the_padding(make: Make, datasets: dict, tmp_path: Path) -> None:
    """Poses of steps that are padding are made relative too, and masked."""
    robot = RobotData(batch_size=16, inputs=INPUTS)
    batches = []
    for padding in ("copy", "zero", "reflect"):
        folder = shutil.copytree(datasets["robot"]["door"], tmp_path / padding)
        info = json.loads((folder / "dataset.json").read_text())
        info["window"]["padding"] = padding
        (folder / "dataset.json").write_text(json.dumps(info))
        batches.append(make(DataConfig(robot=robot), {"robot": {"door": folder}}).batch(0))
    assert not batches[0]["robot"]["action_mask"].all()
    assert equal(batches[0], batches[1]) and equal(batches[0], batches[2])


def test_published_layouts_are_read(
    make: Make, shared_data: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """The published robot shard: six cameras, two image steps, both arms, anchor inside."""
    from foundry_core.data.statistics.builder import compute_statistics

    inputs = RobotInputs(
        cameras=("scene_right_0", "wrist_left_minus"),
        image_steps=(-1, 0),
        image=ImageInput(size=(64, 64), crop=0.9),
        proprio_steps=(-1, 0),
        horizon=16,
        action_past=1,
    )
    shards = ShardSet(shared_data / "lbm_robotics_shard")
    windows, relative = [], []
    for sample in range(len(shards)):
        arrays = np.load(_file(shards, sample, "lowdim.npz"))
        fields = {name: arrays[name][None] for name in inputs.fields}
        relative.append(fields)
        windows.append((str(sample), fields, arrays["past_mask"] | arrays["future_mask"]))
    stats = compute_statistics([(n, f, m[None]) for n, f, m in windows], past=1)
    from foundry_core.data.robot.transform_config import NormalizationConfig

    normalizer = Normalizer.from_statistics(
        stats, inputs.fields, NormalizationConfig(mode="std", clip=None)
    )
    loader = build_loader(
        DataConfig(robot=RobotData(batch_size=5, inputs=inputs, instruction="original")),
        {"robot": {"lbm": shared_data / "lbm_robotics_shard"}},
        seed=0,
        tokenizer=tokenizer,
        tokens_per_image=4,
        normalizer=normalizer,
        train=False,
    )
    robot = loader.batch(0)["robot"]
    assert robot["images"].shape == (5, 4, 3, 64, 64)
    assert robot["proprio"].shape == (5, 2, 10)
    name = "robot__action__poses__right::panda__xyz_relative"
    for row, sample in enumerate(robot["sample_ids"].tolist()):
        ours = normalizer.denormalize(name, robot["actions"][row, :, :3].double().numpy(), -1)
        np.testing.assert_allclose(ours, relative[sample][name][0], atol=1e-6)
