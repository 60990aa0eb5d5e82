"""NumPy on msgpack as others send it, and what nobody may send."""

import io

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foundry_core.errors import FoundryError
from foundry_core.serving.wire.arrays import (
    flat,
    pack_openpi,
    pack_vla_eval,
    unpack_openpi,
    unpack_vla_eval,
)

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.zeros((0, 4), np.int64),
    np.array([True, False]),
    np.array(2.5, np.float32),
    np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
]


@pytest.mark.parametrize(
    ("pack", "unpack"), [(pack_openpi, unpack_openpi), (pack_vla_eval, unpack_vla_eval)]
)
@pytest.mark.parametrize("array", ARRAYS)
def test_arrays_come_back_as_they_were(pack, unpack, array):
    found = unpack(pack({"a": {"b": array}, "text": "é", "n": np.int64(3)}))
    np.testing.assert_array_equal(found["a"]["b"], array)
    assert found["a"]["b"].dtype == array.dtype
    assert (found["text"], found["n"]) == ("é", 3)


def test_the_two_forms_are_those_of_their_protocols():
    array = np.array([1.0, 2.0], np.float32)
    raw = array.tobytes()
    assert msgpack.unpackb(pack_openpi({"x": array})) == {
        "x": {b"__ndarray__": True, b"data": raw, b"dtype": "<f4", b"shape": [2]}
    }
    assert msgpack.unpackb(pack_vla_eval({"x": array})) == {
        "x": {"__ndarray__": True, "data": raw, "dtype": "<f4", "shape": [2]}
    }


@pytest.mark.parametrize("coding", ["png", "jpeg", "raw"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_pictures_of_vla_eval_become_colour(coding, mode):
    if coding == "jpeg" and mode == "RGBA":
        return
    picture = Image.new(mode, (6, 4), 100 if mode == "L" else (100,) * len(mode))
    buffer = io.BytesIO()
    array = np.asarray(picture).reshape(4, 6, -1)
    if coding == "raw":
        data = array.tobytes()
    else:
        picture.save(buffer, format=coding.upper())
        data = buffer.getvalue()
    message = {"__image__": True, "format": coding, "data": data, "shape": list(array.shape)}
    found = unpack_vla_eval(msgpack.packb({"i": message}))["i"]
    assert found.dtype == np.uint8
    assert found.shape == (array.shape if coding == "raw" else (4, 6, 3))
    assert abs(int(found[0, 0, 0]) - 100) <= 2


def raw(**changes):
    fields = {"data": bytes(16), "dtype": "<f4", "shape": [2, 2], **changes}
    return {"__ndarray__": True, **fields}


BAD = [
    (raw(dtype="|O8"), "none of numbers"),
    (raw(dtype="O"), "none of numbers"),
    (raw(dtype="<c8", shape=[2]), "none of numbers"),
    (raw(dtype="i4,f4", shape=[2]), "none of numbers"),
    (raw(dtype=["<f4"]), "none of numbers"),
    (raw(shape=[1 << 40, 1 << 40]), "16 came"),
    (raw(shape=[-2, -2]), "is no shape"),
    (raw(shape=[2.0, 2]), "is no shape"),
    (raw(shape=[1] * 9), "is no shape"),
    (raw(shape="ab"), "is no shape"),
    (raw(data="text"), "not bytes"),
    (raw(shape=[3]), "12 bytes, 16 came"),
    ({"__image__": True, "format": "gif", "data": b"", "shape": [1, 1, 3]}, "raw, jpeg or png"),
    ({"__image__": True, "format": "png", "data": b"no", "shape": [1, 1, 3]}, "a picture"),
]


@pytest.mark.parametrize(("value", "message"), BAD)
def test_what_is_no_array_of_numbers_is_refused(value, message):
    with pytest.raises(FoundryError) as error:
        unpack_vla_eval(msgpack.packb({"x": value}))
    assert message in str(error.value)
    if "__ndarray__" in value:
        bytes_keys = {key.encode(): one for key, one in value.items()}
        with pytest.raises(FoundryError) as error:
            unpack_openpi(msgpack.packb({"x": bytes_keys}))
        assert message in str(error.value)


def test_a_bomb_costs_no_memory():
    nested = b"\x91" * 100_000 + b"\xc0"
    claims = b"\xdd\xff\xff\xff\xff" + b"\xc0" * 10
    for data in (nested, claims, b"", b"\xc1", b"\x81"):
        with pytest.raises(FoundryError, match=r"no msgpack message|is a map"):
            unpack_openpi(data)
    with pytest.raises(FoundryError, match="text frame"):
        unpack_openpi("{}")


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_a_map_or_one_line(data):
    for unpack in (unpack_openpi, unpack_vla_eval):
        try:
            assert isinstance(unpack(data), dict)
        except FoundryError as error:
            assert "\n" not in str(error)


def test_nested_names_are_paths():
    assert flat({"images": {"a": 1, b"b": 2}, "c": 3}) == {"images/a": 1, "images/b": 2, "c": 3}
    deep: dict = {}
    for _ in range(20):
        deep = {"x": deep}
    with pytest.raises(FoundryError, match="nested more than 8 deep"):
        flat(deep)
