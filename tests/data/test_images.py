"""Image geometry: known intrinsics, depth edges, rotations, codecs."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from foundry_core.data.images import (
    decode_image,
    encode_jpeg,
    image_format,
    image_size,
    rotate,
    transform,
    transform_depth,
    transform_matrix,
)
from foundry_core.data.shards.read import ShardSet
from foundry_core.errors import FoundryError

K = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]])


@pytest.mark.parametrize(
    ("size", "method", "expected"),
    [
        ((480, 480), "center_crop", (800, 800, 240, 240)),
        ((320, 320), "center_crop", (1600 / 3, 1600 / 3, 160, 160)),
        ((640, 640), "resize_fit", (800, 800, 320, 320)),
        ((240, 640), "resize_no_crop", (800, 400, 320, 120)),
    ],
)
def test_intrinsics_follow_the_image(size, method, expected):
    image, moved = transform(np.zeros((480, 640, 3), np.uint8), size, method, K)
    assert image.shape == (*size, 3)
    np.testing.assert_allclose([moved[i] for i in ((0, 0), (1, 1), (0, 2), (1, 2))], expected)


def test_intrinsics_of_a_published_conversion(shared_data):
    shard = ShardSet(shared_data / "lbm_robotics_shard")
    with np.load(io.BytesIO(shard.member(0, "lowdim.npz"))) as arrays:
        for camera, size in (("scene_right_0", (480, 640)), ("wrist_left_plus", (600, 960))):
            matrix = transform_matrix(size, (224, 224), "center_crop")
            ours = matrix @ arrays[f"original_intrinsics.{camera}"]
            np.testing.assert_allclose(ours, arrays[f"rescaled_intrinsics.{camera}"], atol=1e-9)


@pytest.mark.parametrize("method", ["center_crop", "resize_no_crop", "resize_fit"])
def test_a_marked_point_lands_where_the_matrix_says(method):
    image = np.zeros((480, 640, 3), np.uint8)
    image[300:316, 400:416] = 255
    out, _ = transform(image, (120, 160), method)
    rows, columns = np.nonzero(out[..., 0] > 127)
    x, y, _ = transform_matrix((480, 640), (120, 160), method) @ [408, 308, 1]
    assert abs(columns.mean() + 0.5 - x) < 0.6 and abs(rows.mean() + 0.5 - y) < 0.6


def test_depth_keeps_only_values_that_were_measured():
    depth = np.full((480, 640), 500, np.uint16)
    depth[:, 320:] = 2000
    out = transform_depth(depth, (101, 103), "center_crop")
    assert out.shape == (101, 103) and set(np.unique(out)) == {500, 2000}
    fitted = transform_depth(depth, (100, 100), "resize_fit")
    assert (fitted[:10] == 0).all() and set(np.unique(fitted)) == {0, 500, 2000}


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, 360])
def test_rotation_turns_image_and_intrinsics_alike(degrees):
    """A point in front of the camera is projected, then turned; or turned, then projected."""
    image = np.zeros((480, 640, 3), np.uint8)
    image[100, 200] = 255  # pixel centre (200.5, 100.5)
    turned, matrix = rotate(image, degrees, K)
    (row,), (column,) = np.nonzero(turned[..., 0])
    ray = np.linalg.inv(K) @ [200.5, 100.5, 1]
    angle = np.deg2rad(-degrees)  # image y points down: counter-clockwise on screen
    c, s = np.round([np.cos(angle), np.sin(angle)])
    x, y, _ = matrix @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ ray
    np.testing.assert_allclose((x, y), (column + 0.5, row + 0.5), atol=1e-9)


def test_codecs_and_broken_images():
    image = np.full((24, 32, 3), (200, 30, 90), np.uint8)
    data = encode_jpeg(image, 95)
    assert data == encode_jpeg(image, 95) and image_format(data) == "jpg"
    assert np.abs(decode_image(data).astype(int) - image).max() <= 3
    for name in ("PNG", "WEBP"):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, name, lossless=True)
        assert image_format(buffer.getvalue()) == name.lower()
        assert (decode_image(buffer.getvalue()) == image).all()
    for broken in (b"", b"\xff\xd8 not a jpeg", data[:40], b"GIF89a"):
        with pytest.raises(FoundryError, match="ep7 camera"):
            decode_image(broken, "ep7 camera")
    with pytest.raises(FoundryError, match="unknown image method"):
        transform_matrix((2, 2), (1, 1), "squash")


def lying_jpeg() -> bytes:
    """A small picture whose header claims 65500 x 65500 pixels."""
    data = bytearray(encode_jpeg(np.zeros((8, 8, 3), np.uint8), 90))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


@pytest.mark.parametrize("read", [decode_image, image_size])
def test_what_claims_too_many_pixels_takes_no_memory(read):
    with pytest.raises(FoundryError, match="front claims 65500 x 65500 pixels") as error:
        read(lying_jpeg(), "front")
    assert error.value.hint
