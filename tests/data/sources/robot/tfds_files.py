"""A TFDS folder as TensorFlow writes one, byte by byte."""

import json
import struct

import numpy as np

_NAME = "tensorflow_datasets.core.features."


def crc32c(data):
    """Bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data):
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(value):
    value &= 2**64 - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values, packed=True):
    """Of byte strings, floats or whole numbers."""
    values = list(values)
    if not values:
        return b""
    if isinstance(values[0], bytes):
        return message(1, b"".join(message(1, value) for value in values))
    if isinstance(values[0], float):
        parts = [struct.pack("<f", value) for value in values]
        kind, wire = 2, 5
    else:
        parts = [varint(int(value)) for value in values]
        kind, wire = 3, 0
    if packed:
        return message(kind, message(1, b"".join(parts)))
    return message(kind, b"".join(varint(1 << 3 | wire) + part for part in parts))


def example(values, packed=True):
    """{name: values} → bytes of a tf.train.Example."""
    entries = [
        message(1, message(1, name.encode()) + message(2, feature(held, packed)))
        for name, held in values.items()
    ]
    return message(1, b"".join(entries))


def tensor(dtype, *shape, encoding="none"):
    node = {"dtype": dtype, "encoding": encoding, "shape": {}}
    if shape:
        node["shape"] = {"dimensions": [str(one) for one in shape]}
    return {"pythonClassName": _NAME + "tensor_feature.Tensor", "tensor": node}


def image(*shape, dtype="uint8"):
    dimensions = {"dimensions": [str(one) for one in shape]}
    return {"image": {"dtype": dtype, "shape": dimensions, "encodingFormat": "jpeg"}}


TEXT = {"pythonClassName": _NAME + "text_feature.Text", "text": {}}


def features(**nodes):
    return {"featuresDict": {"features": nodes}}


def sequence(node):
    return {"sequence": {"feature": node, "length": "-1"}}


def floats(array):
    return [float(value) for value in np.asarray(array).reshape(-1)]


def write(folder, steps, shards, metadata=None, promised=None):
    """steps, metadata: nodes of features.json by name. shards: {split: [[Example, ...] per
    shard]}. promised: shardLengths where they differ."""
    folder.mkdir(parents=True, exist_ok=True)
    top = {"steps": sequence(features(**steps)), "episode_metadata": features(**(metadata or {}))}
    (folder / "features.json").write_text(json.dumps(features(**top)))
    splits = []
    for split, parts in shards.items():
        for number, examples in enumerate(parts):
            path = folder / f"toy-{split}.tfrecord-{number:05d}-of-{len(parts):05d}"
            path.write_bytes(b"".join(map(record, examples)))
        lengths = [str(len(part)) for part in parts]
        splits.append({"name": split, "shardLengths": (promised or {}).get(split, lengths)})
    info = {"name": "toy", "fileFormat": "tfrecord", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder
