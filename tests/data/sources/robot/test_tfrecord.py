"""TFRecord framing, its CRC, and tf.train.Example off the wire."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.tfds.crc32c import crc32c
from foundry_core.data.sources.robot.tfds.example import parse_example
from foundry_core.data.sources.robot.tfds.records import read_record, record_starts
from tests.data.sources.robot import tfds_files as tfds


def test_known_crcs():
    """RFC 3720, B.4, and the check value of the algorithm."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("size", [1, 3, 4, 63, 64, 65, 127, 128, 1000, 4095, 4096, 4097, 70001])
def test_crc_at_any_length(size):
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == tfds.crc32c(data)
    assert crc32c(memoryview(data)) == crc32c(data)


def test_records_are_found_and_read(tmp_path):
    datas = [b"first", b"", b"third" * 1000]
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"".join(map(tfds.record, datas)))
    starts, reason = record_starts(path)
    assert reason == ""
    assert [read_record(path, start) for start in starts] == datas


@pytest.mark.parametrize(
    ("damage", "held", "message"),
    [
        (lambda data: data[:-1], 2, "record at byte 21 takes 6 bytes"),
        (lambda data: data[:25], 2, "cut short at byte 21"),
        (lambda data: data[:14] + b"\x00" + data[15:], 1, "byte 0 fails its CRC"),
        (lambda data: b"\x06" + data[1:], 1, "the length at byte 0 fails its CRC"),
        (lambda data: b"\x1f\x8b" + data[2:], 1, "compressed by gzip"),
    ],
)
def test_damage_is_named_by_its_byte(tmp_path, damage, held, message):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(damage(tfds.record(b"first") + tfds.record(b"second")))
    starts, _ = record_starts(path)
    assert len(starts) >= held
    with pytest.raises(UnusableEpisode, match=message) as caught:
        [read_record(path, start) for start in starts]
    assert "x.tfrecord" in str(caught.value)


def test_a_length_that_leads_out_of_the_file_reserves_nothing(tmp_path):
    length = (2**62).to_bytes(8, "little")
    path = tmp_path / "x.tfrecord"
    path.write_bytes(length + tfds.masked(length) + b"data")
    with pytest.raises(UnusableEpisode, match="cut short"):
        read_record(path, 0)
    os.truncate(path, 0)
    assert record_starts(path) == ([], "")


@pytest.mark.parametrize("packed", [True, False])
def test_an_example(packed):
    wanted = {
        "floats": [1.5, -2.25, 3e38],
        "ints": [0, 127, 128, 300, -1, 2**63 - 1, -(2**63)],
        "bytes": [b"", b"\xff\xd8", "ä".encode()],
        "none": [],
    }
    found = parse_example(tfds.example(wanted, packed))
    assert found["floats"].tolist() == np.float32(wanted["floats"]).tolist()
    assert found["ints"].tolist() == wanted["ints"]
    assert [bytes(one) for one in found["bytes"]] == wanted["bytes"]
    assert list(found["none"]) == []


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_whole_numbers(values):
    assert parse_example(tfds.example({"x": values}))["x"].tolist() == values


@given(st.binary(max_size=60), st.integers(0, 70))
def test_bytes_that_are_no_example(noise, cut):
    """Any bytes at all give values or one kind of error."""
    whole = tfds.example({"x": [1, 2, 300], "y": [1.0], "z": [b"abc"]})
    for data in (noise, whole[:cut] + noise, whole[:cut]):
        try:
            parse_example(data)
        except (ValueError, TypeError):
            continue


@pytest.mark.parametrize("cut", [3, 9, 14])
def test_an_example_that_is_cut_short(cut):
    with pytest.raises(ValueError, match=r"bytes at byte|whole number"):
        parse_example(tfds.example({"x": [1, 2, 300]})[:-cut])
