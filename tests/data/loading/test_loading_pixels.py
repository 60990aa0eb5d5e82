"""Images decoded in place and windows prepared together: the same numbers as one by one."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundry_core.data.images import decode_image, decode_into, encode_jpeg, image_size
from foundry_core.data.loading import pixels
from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import CaptionData, DataConfig, LoaderResources, RobotData
from foundry_core.data.loading.pixels import BatchImages
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.transform_config import (
    Augment,
    ImageInput,
    NormalizationConfig,
    RobotInputs,
)
from foundry_core.errors import FoundryError
from tests.synthetic import INPUTS, make_robot, picture, write_shards


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("encode", [lambda image: encode_jpeg(image, 90), png])
def test_decoding_into_memory_gives_the_pixels_of_the_decoder(encode) -> None:
    data = encode(picture(3, 24))
    out = np.empty((24, 24, 3), np.uint8)
    assert image_size(data, "x") == (24, 24)
    assert decode_into(data, out, "x") and np.array_equal(out, decode_image(data))
    for size in (23, 25, 48):
        assert not decode_into(data, np.empty((size, size, 3), np.uint8), "x")
    with pytest.raises(FoundryError, match="front of e1 is not a readable image"):
        decode_into(data[: len(data) // 2], out, "front of e1")


def test_the_images_of_a_batch_are_rows_of_one_shape() -> None:
    batch = BatchImages(2)
    batch.row(1)((3, 4, 5, 3))[...] = 7
    images = batch.images
    assert images is not None and images.shape == (2, 3, 3, 4, 5) and (images[1] == 7).all()
    with pytest.raises(FoundryError, match="different shapes"):
        batch.row(0)((3, 4, 4, 3))


@pytest.fixture
def make(datasets, tokenizer, normalizer):
    def build(robot: RobotData, cache: int = 0, sources: dict | None = None):
        return build_loader(
            DataConfig(robot=robot),
            {"robot": sources or datasets["robot"]},
            seed=2,
            tokenizer=tokenizer,
            tokens_per_image=2,
            normalizer=normalizer,
            resources=LoaderResources(cache_bytes=cache),
        )

    return build


def test_in_place_cached_and_transformed_images_agree(make) -> None:
    """The same batches four ways; the second epoch reads from the caches."""
    plain = RobotData(batch_size=8, inputs=INPUTS)
    sized = INPUTS.model_copy(update={"image": ImageInput(size=(16, 16))})
    # Brightness 1 ± 1e-9 changes no pixel, but takes the way of images that are changed.
    slow = RobotData(batch_size=8, inputs=INPUTS, augment=Augment(brightness=1e-9))
    loaders = [
        make(plain),
        make(plain, cache=1 << 30),
        make(plain, cache=3000),
        make(RobotData(batch_size=8, inputs=sized)),
        make(slow, cache=1 << 30),
    ]
    epoch = loaders[0].modalities["robot"].order.epoch_length // 8 + 1
    for step in [0, 1, 2, epoch, epoch + 1, epoch + 2]:
        first, *others = [loader.batch(step)["robot"]["images"] for loader in loaders]
        assert first.float().std() > 1
        assert all(first.equal(other) for other in others)
    channels_last = first.permute(0, 1, 3, 4, 2)
    assert channels_last.is_contiguous()


def test_captions_and_robot_data_share_the_room_for_decoded_images(
    datasets, tokenizer, normalizer, monkeypatch
) -> None:
    """Every picture is decoded once where there is room for all; where there is not, no more is
    kept than the bytes that were given."""

    def batches(room: int) -> tuple[list, int, int]:
        decoded = 0

        def counted(*arguments):
            nonlocal decoded
            decoded += 1
            return decode_into(*arguments)

        monkeypatch.setattr(pixels, "decode_into", counted)
        loader = build_loader(
            DataConfig(
                captions=CaptionData(batch_size=4), robot=RobotData(batch_size=4, inputs=INPUTS)
            ),
            {name: datasets[name] for name in ("captions", "robot")},
            seed=3,
            tokenizer=tokenizer,
            tokens_per_image=2,
            normalizer=normalizer,
            resources=LoaderResources(cache_bytes=room),
        )
        steps = max(m.order.epoch_length for m in loader.modalities.values()) // 4 * 3
        images = [
            loader.batch(step)[name]["images"] for step in range(steps) for name in datasets_read
        ]
        readers = [d._images for m in loader.modalities.values() for d in m.datasets]
        kept = sum(image.nbytes for r in readers for image in r._cache.values())
        return images, decoded, kept

    datasets_read = ("captions", "robot")
    plain, often, nothing = batches(0)
    cached, once, everything = batches(1 << 30)
    some, _, part = batches(everything // 2)
    assert nothing == 0 and 0 < part <= everything // 2
    assert once < often / 2 and once * 16 * 16 * 3 == everything
    for other in (cached, some):
        assert all(a.equal(b) for a, b in zip(plain, other, strict=True))


def test_images_of_several_sizes_are_resized_or_refused(make, tmp_path: Path) -> None:
    sources = {
        "small": make_robot(tmp_path / "small", episodes=2),
        "large": make_robot(tmp_path / "large", episodes=2, seed=1, size=20),
    }
    with pytest.raises(FoundryError, match="different shapes"):
        make(RobotData(batch_size=16, inputs=INPUTS), sources=sources).batch(0)
    sized = INPUTS.model_copy(update={"image": ImageInput(size=(16, 16))})
    batch = make(RobotData(batch_size=16, inputs=sized), sources=sources).batch(0)["robot"]
    assert batch["images"].shape == (16, 2, 3, 16, 16)
    assert len({int(i) for i in batch["sample_ids"]}) == 16


def test_ready_cut_samples_prepared_together_equal_one_by_one(shared_data, tokenizer) -> None:
    inputs = RobotInputs(cameras=("scene_right_0",), horizon=16, action_past=1)
    from foundry_core.data.inspection.recompute import dataset_statistics

    folder = shared_data / "lbm_robotics_shard"
    normalizer = Normalizer.from_statistics(
        dataset_statistics(folder), inputs.fields, NormalizationConfig(clip=None)
    )
    together, apart = (
        build_loader(
            DataConfig(robot=RobotData(batch_size=5, inputs=inputs)),
            {"robot": {"lbm": folder}},
            seed=0,
            tokenizer=tokenizer,
            normalizer=normalizer,
        )
        for _ in range(2)
    )
    dataset = apart.modalities["robot"].datasets[0]
    batch = together.batch(0)["robot"]
    for row, index in enumerate(batch["sample_ids"].tolist()):
        one = dataset.read(index, 0)
        for name in ("actions", "action_mask", "proprio", "images"):
            assert np.array_equal(batch[name][row].numpy(), one[name]), name


def test_caption_images_of_several_sizes_are_refused_by_name(tmp_path: Path, tokenizer) -> None:
    write_shards(
        tmp_path,
        [
            (f"c{i}", {"jpg": encode_jpeg(picture(i, 16 + i), 90), "txt": b"a", "json": b"{}"})
            for i in range(4)
        ],
        4,
    )
    loader = build_loader(
        DataConfig(captions=CaptionData(batch_size=4)),
        {"captions": {"c": tmp_path}},
        seed=0,
        tokenizer=tokenizer,
    )
    with pytest.raises(FoundryError, match=r"different shapes.*image.size"):
        loader.batch(0)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_memory_is_flat_once_an_epoch_was_seen(make) -> None:
    loader = make(RobotData(batch_size=8, inputs=INPUTS, augment=Augment(shift=1)))
    steps = loader.modalities["robot"].order.epoch_length // 8 + 1
    after = []
    for step in range(12 * steps):
        loader.batch(step)
        if (step + 1) % (4 * steps) == 0:
            after.append(_anonymous_kib())
    assert after[-1] - after[0] < 1024, after  # over a hundred batches


def _anonymous_kib() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


@pytest.mark.parametrize("augment", [Augment(), Augment(brightness=1e-9)])
def test_where_an_episode_begins_the_step_before_it_is_its_first(make, augment) -> None:
    """It was read as one image fewer, and no batch could hold it beside others."""
    inputs = INPUTS.model_copy(update={"image_steps": (-1, 0)})
    robot = RobotData(batch_size=8, inputs=inputs, augment=augment)
    for loader in (make(robot), make(robot, cache=1 << 30)):
        begins = 0
        for step in range(loader.modalities["robot"].order.epoch_length // 8 + 1):
            images = loader.batch(step)["robot"]["images"]
            assert images.shape == (8, 4, 3, 16, 16)
            same = (images[:, 0] == images[:, 1]).flatten(1).all(dim=1)
            assert same.equal((images[:, 2] == images[:, 3]).flatten(1).all(dim=1))
            begins += int(same.sum())
        assert begins > 0
