"""features.json: what the values of an Example are, by path."""

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from foundry_core.data.sources.robot.steps import MAX_DIMS
from foundry_core.data.sources.robot.tfds.example import Values
from foundry_core.errors import FoundryError

_NUMBERS = {
    *("float16", "bfloat16", "float32", "float64", "bool"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
Kind = Literal["picture", "depth", "text", "number", "other"]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One leaf. kind "depth": PNG files of 16 bits. "other" is not read: ragged lists, depth in
    other forms, what is not known. shape: per step;
    encoding: of numbers, "" or "bytes" or "zlib"."""

    kind: Kind
    dtype: str = ""
    shape: tuple[int, ...] = ()
    encoding: str = ""

    def numbers(self, values: Values) -> np.ndarray:
        """[T, ...] in the dtype that the file declares. Raises ValueError where values do not make
        whole steps."""
        dtype = np.dtype("float32" if self.dtype == "bfloat16" else self.dtype)
        size = math.prod(self.shape)
        if self.encoding:
            flat = np.concatenate(
                [np.zeros(0, dtype), *(self._unpacked(one, dtype, size) for one in values)]
            )
        else:
            if isinstance(values, list) and values:
                raise ValueError("byte strings where numbers are declared")
            flat = np.asarray(values)
        if len(flat) % size:
            raise ValueError(f"{len(flat)} values are no whole number of steps of {size}")
        return flat.astype(dtype).reshape(-1, *self.shape)

    def _unpacked(self, value: Any, dtype: np.dtype, size: int) -> np.ndarray:
        data = bytes(value)
        if self.encoding == "zlib":
            data = zlib.decompressobj().decompress(data, size * dtype.itemsize + 1)
        if len(data) != size * dtype.itemsize:
            raise ValueError(f"a step of {len(data)} bytes, not {size * dtype.itemsize}")
        return np.frombuffer(data, dtype.newbyteorder("<"))


def read_features(document: Any, where: str) -> tuple[dict[str, Feature], dict[str, Feature]]:
    """(features of a step by path below `steps`, others by path). FoundryError for what is no
    RLDS."""
    try:
        top = dict(document["featuresDict"]["features"])
        steps = top.pop("steps")["sequence"]["feature"]
        return dict(_leaves(steps, "")), {
            path: found for name, node in top.items() for path, found in _leaves(node, name)
        }
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FoundryError(
            f"{where} describes no RLDS episodes: {error!r}",
            "a record must be an episode with `steps`",
        ) from error


def _leaves(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Feature]]:
    if "featuresDict" in node:
        for name, below in node["featuresDict"].get("features", {}).items():
            yield from _leaves(below, f"{path}/{name}".lstrip("/"))
    elif "image" in node:
        shape = _shape(node["image"])
        dtype = _dtype(node["image"]) or "uint8"
        colour = dtype == "uint8" and (not shape or shape[-1] == 3)
        counts = dtype == "uint16" and (not shape or shape[-1] == 1)
        yield path, Feature(kind="picture" if colour else "depth" if counts else "other")
    elif "text" in node:
        yield path, Feature(kind="text")
    elif "tensor" in node:
        yield path, _tensor(node["tensor"])
    else:
        yield path, Feature(kind="other")


def _tensor(node: Mapping[str, Any]) -> Feature:
    shape, dtype = _shape(node), _dtype(node)
    if dtype in ("string", "object", "str"):
        return Feature(kind="other" if shape else "text")
    if dtype not in _NUMBERS or any(one < 1 for one in shape) or math.prod(shape) > MAX_DIMS:
        return Feature(kind="other")
    encoding = str(node.get("encoding") or "none").lower()
    return Feature(
        kind="number", dtype=dtype, shape=shape, encoding="" if encoding == "none" else encoding
    )


def _shape(node: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(one) for one in (node.get("shape") or {}).get("dimensions", ()))


def _dtype(node: Mapping[str, Any]) -> str:
    """ "float32" of "numpy.float32" too."""
    name = str(node.get("dtype", "")).rpartition(".")[2]
    return "bool" if name == "bool_" else name
