"""NumPy on msgpack, as vla-eval and as openpi send it. No pickle, no objects.

vla-eval marks an array with the text key `__ndarray__`, a picture with `__image__`; openpi with the
bytes keys `__ndarray__` and `__npgeneric__`. What comes may come from anybody: sizes are held
against each other before memory is taken. Arrays that were read are views of the message.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import numpy as np

from foundry_core.errors import FoundryError

_NUMBERS = "biuf"
_DTYPE = re.compile(r"[<>=|]?[a-z]{1,7}[0-9]{0,3}")
_MOST_DIMS = 8
_MOST_ITEMS = 100_000
_MOST_DEPTH = 8
_MARK, _IMAGE, _SCALAR = "__ndarray__", "__image__", "__npgeneric__"


def unpack_vla_eval(data: bytes) -> dict[str, Any]:
    """One message of vla-eval. FoundryError for what is none."""
    return _unpacked(data, _vla_eval_hook)


def pack_vla_eval(message: Mapping[str, Any]) -> bytes:
    """Pictures as raw arrays, which every client reads."""
    return _packed(message, _vla_eval_default)


def unpack_openpi(data: bytes) -> dict[str, Any]:
    """One message of openpi. FoundryError for what is none."""
    return _unpacked(data, _openpi_hook)


def pack_openpi(message: Mapping[str, Any]) -> bytes:
    return _packed(message, _openpi_default)


def flat(message: Mapping[str, Any], most: int = _MOST_DEPTH) -> dict[str, Any]:
    """Nested mappings as one, with paths for names: {"images": {"a": x}} → {"images/a": x}."""
    found: dict[str, Any] = {}
    for key, value in message.items():
        name = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
        if not isinstance(value, Mapping):
            found[name] = value
        elif most <= 0:
            raise FoundryError(f"{name!r}: an observation is nested more than {_MOST_DEPTH} deep")
        else:
            found |= {f"{name}/{inner}": one for inner, one in flat(value, most - 1).items()}
    return found


def _unpacked(data: bytes, hook: Callable[[dict], Any]) -> dict[str, Any]:
    if not isinstance(data, bytes):
        raise FoundryError("a text frame is no message", "send msgpack as binary frames")
    try:
        message = msgpack.unpackb(
            data,
            object_hook=hook,
            raw=False,
            max_array_len=_MOST_ITEMS,
            max_map_len=_MOST_ITEMS,
            max_ext_len=0,
        )
    except FoundryError:
        raise
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise FoundryError(f"{len(data)} bytes are no msgpack message: {text}") from None
    if not isinstance(message, dict):
        raise FoundryError(f"a message is a map, not {type(message).__name__}")
    return message


def _packed(message: Mapping[str, Any], default: Callable[[Any], Any]) -> bytes:
    packed: bytes = msgpack.packb(message, default=default, use_bin_type=True)
    return packed


def _vla_eval_hook(value: dict) -> Any:
    if _IMAGE in value:
        return _picture(value)
    return _array(value, value.get) if _MARK in value else value


def _openpi_hook(value: dict) -> Any:
    if _MARK.encode() in value:
        return _array(value, lambda name: value.get(name.encode()))
    if _SCALAR.encode() in value:
        number, dtype = value.get(b"data"), _dtype(value.get(b"dtype"))
        if not isinstance(number, bool | int | float):
            raise FoundryError(f"a number is {type(number).__name__}")
        return np.array(number).astype(dtype)[()]
    return value


def _array(value: dict, get: Callable[[str], Any]) -> np.ndarray:
    data, shape, dtype = get("data"), get("shape"), _dtype(get("dtype"))
    if not isinstance(data, bytes):
        raise FoundryError(f"an array's data are {type(data).__name__}, not bytes")
    count = _checked_shape(shape)
    if count * dtype.itemsize != len(data):
        size = count * dtype.itemsize
        raise FoundryError(f"an array of {dtype} {shape} has {size} bytes, {len(data)} came")
    return np.frombuffer(data, dtype).reshape(shape)


def _dtype(name: Any) -> np.dtype:
    """FoundryError for what is no type of numbers: objects, text, records."""
    if isinstance(name, str) and len(name) <= 12 and _DTYPE.fullmatch(name):
        try:
            dtype = np.dtype(name)
        except TypeError:
            dtype = np.dtype("V")
        if dtype.kind in _NUMBERS:
            return dtype
    raise FoundryError(f"dtype {name!r:.40} is none of numbers", "bool, int, uint or float arrays")


def _checked_shape(shape: Any) -> int:
    """How many numbers an array of that shape has."""
    fits = (
        isinstance(shape, list | tuple)
        and len(shape) <= _MOST_DIMS
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    )
    if not fits:
        raise FoundryError(f"shape {shape!r:.80} is no shape of at most {_MOST_DIMS} dimensions")
    return math.prod(shape)


def _picture(value: dict) -> np.ndarray:
    """A picture as vla-eval sends it, RGB uint8 [H, W, 3] where it was coded."""
    coding, data, shape = value.get("format"), value.get("data"), value.get("shape")
    if coding == "raw":
        return _array(value, lambda name: value.get(name, "|u1" if name == "dtype" else None))
    if coding not in ("jpeg", "png") or not isinstance(data, bytes):
        raise FoundryError(f"a picture of format {coding!r:.40}", "raw, jpeg or png")
    _checked_shape(shape)
    # Only what is coded needs decoders.
    from foundry_core.data.images import decode_image

    picture = decode_image(data, "a picture")
    if tuple(picture.shape[:2]) != tuple(shape or ())[:2]:
        raise FoundryError(
            f"a picture says {shape} and is {list(picture.shape)}", "send its own shape"
        )
    return picture


def _vla_eval_default(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        fields = {"data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
        return {_MARK: True, **fields}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _openpi_default(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {
            _MARK.encode(): True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": list(value.shape),
        }
    if isinstance(value, np.generic):
        return {_SCALAR.encode(): True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} cannot be sent")
