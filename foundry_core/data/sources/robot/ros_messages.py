"""What decoded messages hold: stamps, numbers, joints, pictures. ROS types and Foxglove's alike."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from foundry_core.config.suggest import nearest
from foundry_core.data.images import MAX_PIXELS, image_size
from foundry_core.data.robot.episodes import Picture
from foundry_core.errors import FoundryError

PICTURES = ("Image", "CompressedImage", "RawImage")
JOINTS = ("position", "velocity", "effort")
_POSE = {"position": "pose.position", "orientation": "pose.orientation"}
_TWIST = {"linear": "linear", "angular": "angular"}
_DATA = {"": "data"}
_NUMBERS = ("Float", "Int", "UInt", "Bool")
# Type without package → {part of the field's name: path in the message}.
_PARTS: Mapping[str, Mapping[str, str]] = {
    "JointState": {name: name for name in JOINTS},
    "Pose": {"position": "position", "orientation": "orientation"},
    "PoseStamped": _POSE,
    "PoseInFrame": _POSE,
    "PoseWithCovarianceStamped": {name: f"pose.{path}" for name, path in _POSE.items()},
    "Odometry": {
        **{name: f"pose.{path}" for name, path in _POSE.items()},
        **{name: f"twist.twist.{path}" for name, path in _TWIST.items()},
    },
    "Twist": _TWIST,
    "TwistStamped": {name: f"twist.{path}" for name, path in _TWIST.items()},
    "WrenchStamped": {"force": "wrench.force", "torque": "wrench.torque"},
}
# The order of parts that stand for one vector: a JSON object has none of its own.
_ORDERS = (
    ("x", "y", "z"), ("x", "y", "z", "w"), ("position", "orientation"), ("linear", "angular"),
    ("translation", "rotation"), ("force", "torque"),
)  # fmt: skip
# encoding → (channels, which of them are red, green and blue)
_COLOURS: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8UC1": (1, (0, 0, 0)),
}
# encoding → (dtype, metres per unit)
_DEPTHS: Mapping[str, tuple[np.dtype, float]] = {
    "16UC1": (np.dtype("u2"), 0.001),
    "32FC1": (np.dtype("f4"), 1.0),
}
# A header of compressed_depth_image_transport stands before the PNG.
_DEPTH_HEADER = 12


def default_parts(kind: str) -> Mapping[str, str]:
    """{part: path} of the numbers in a type; none of types that are not known."""
    if kind.startswith(_NUMBERS):
        return _DATA
    return _PARTS.get(kind, {})


def part(message: Any, path: str) -> Any:
    """What lies at `a.b` in a message. FoundryError with the nearest name."""
    for name in path.split("."):
        names = _names(message)
        if name not in names:
            raise FoundryError(f"there is no {name!r} at {path!r}", nearest(name, names))
        message = message[name] if isinstance(message, Mapping) else getattr(message, name)
    return message


def _names(message: Any) -> tuple[str, ...]:
    if isinstance(message, Mapping):
        return tuple(map(str, message))
    if hasattr(message, "DESCRIPTOR"):
        return tuple(message.DESCRIPTOR.fields_by_name)
    named = getattr(message, "__dataclass_fields__", {})
    return tuple(name for name in named if not name.startswith("_"))


def stamp(message: Any) -> int | None:
    """ns at which it was measured, by its header; None where that says nothing, or zero."""
    for path in ("header.stamp", "timestamp"):
        try:
            time = part(message, path)
        except FoundryError:
            continue
        names = _names(time)
        seconds = next((_whole(time, n) for n in ("sec", "seconds") if n in names), 0)
        rest = next((_whole(time, n) for n in ("nanosec", "nsec", "nanos") if n in names), 0)
        return seconds * 10**9 + rest or None
    return None


def _whole(time: Any, name: str) -> int:
    value = part(time, name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise FoundryError(f"{name!r} of a time stamp is {value!r}", "whole numbers are times")
    return value


def numbers(value: Any) -> np.ndarray:
    """float64 [D] of a number, a list, or parts like x, y, z. FoundryError for anything else."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float64).ravel()
    if isinstance(value, bool | int | float | np.number):
        return np.array([value], np.float64)
    names = _names(value)
    if names:
        for order in _ORDERS:
            if set(order) == set(names):
                return np.concatenate([numbers(part(value, name)) for name in order])
        raise FoundryError(f"{', '.join(names)} are no vector", "name one of them in the path")
    listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if listed and all(isinstance(one, bool | int | float) for one in value):
        return np.array(value, np.float64)
    raise FoundryError(f"a {type(value).__name__} is no number", "name another path, or no path")


def joint_numbers(message: Any, path: str, joints: Sequence[str]) -> np.ndarray | None:
    """float64 [joints], found by name; None of a message that holds none of them, or no values.
    FoundryError for one that holds only some."""
    names, values = list(part(message, "name")), numbers(part(message, path))
    if not len(values):
        return None
    if len(values) != len(names):
        raise FoundryError(f"{len(values)} {path} values for {len(names)} names", "mend it")
    missing = [joint for joint in joints if joint not in names]
    if len(missing) == len(joints):
        return None
    if missing:
        raise FoundryError(f"there is no joint {missing[0]!r}", nearest(missing[0], names))
    return values[[names.index(joint) for joint in joints]]


def is_depth(message: Any) -> bool:
    said = _encoding(message)
    return said.startswith(tuple(_DEPTHS)) or "compressedDepth" in said


def _encoding(message: Any) -> str:
    names = _names(message)
    said = part(message, "encoding" if "encoding" in names else "format")
    return said if isinstance(said, str) else ""


def picture(message: Any) -> Picture:
    """A file's bytes, or uint8 [H, W, 3]. FoundryError for sizes that do not fit the data."""
    if "encoding" not in _names(message):
        return _file(message)
    encoding = _encoding(message)
    if encoding not in _COLOURS:
        raise FoundryError(f"encoding {encoding!r} is not read", nearest(encoding, _COLOURS))
    channels, order = _COLOURS[encoding]
    return np.ascontiguousarray(_rows(message, np.dtype("u1"), channels)[..., list(order)])


def depth(message: Any) -> np.ndarray:
    """float32 [H, W], metres."""
    said = _encoding(message)
    kind = next((name for name in _DEPTHS if said.startswith(name)), "")
    if not kind:
        raise FoundryError(f"{said!r} is no depth that is read", nearest(said, _DEPTHS))
    dtype, metres = _DEPTHS[kind]
    if "encoding" in _names(message):
        return (_rows(message, dtype, 1)[..., 0] * metres).astype(np.float32)
    data = _file(message, _DEPTH_HEADER if "compressedDepth" in said else 0)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            stored = np.asarray(opened)
    except (OSError, ValueError, SyntaxError) as error:
        raise FoundryError(f"it is no readable depth: {error}", "remove the episode") from error
    if kind != "16UC1" or stored.ndim != 2 or stored.dtype.kind not in "ui":
        raise FoundryError(f"compressed {kind} is not read", "record it as raw images, or 16UC1")
    return (stored * metres).astype(np.float32)


def _file(message: Any, skip: int = 0) -> bytes:
    data = _bytes(part(message, "data")).tobytes()[skip:]
    height, width = image_size(data, "data")
    _bounded(height, width)
    return data


def _rows(message: Any, dtype: np.dtype, channels: int) -> np.ndarray:
    """[H, W, channels] of a raw image; rows may be longer than their pixels."""
    size = {name: part(message, name) for name in ("height", "width", "step")}
    for name, value in size.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise FoundryError(f"{name} is {value!r}", "sizes are whole numbers")
    height, width, step = size.values()
    _bounded(height, width)
    data, row = _bytes(part(message, "data")), width * channels * dtype.itemsize
    if step < row or len(data) < step * (height - 1) + row:
        raise FoundryError(
            f"{len(data)} bytes in rows of {step} are no {height}x{width} {_encoding(message)}",
            "remove the episode",
        )
    big = "is_bigendian" in _names(message) and bool(part(message, "is_bigendian"))
    # The last row may lack its padding; a lone one may say anything of it.
    step = step if height > 1 else row
    whole = np.zeros(step * height, np.uint8)
    whole[: len(data)] = data[: len(whole)]
    pixels = np.ascontiguousarray(whole.reshape(height, step)[:, :row])
    return pixels.view(dtype.newbyteorder(">" if big else "<")).reshape(height, width, channels)


def _bounded(height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise FoundryError(f"{height}x{width} pixels", f"from 1 to {MAX_PIXELS} are read")


def _bytes(data: Any) -> np.ndarray:
    """uint8 [N]; JSON has base64."""
    if isinstance(data, str):
        try:
            data = base64.b64decode(data, validate=True)
        except ValueError as error:
            raise FoundryError(f"its data are no base64: {error}", "remove the episode") from None
    if isinstance(data, bytes):
        return np.frombuffer(data, np.uint8)
    if isinstance(data, np.ndarray) and data.dtype.itemsize == 1:
        return data.view(np.uint8)
    raise FoundryError(f"its data are a {type(data).__name__}, not bytes", "remove the episode")
