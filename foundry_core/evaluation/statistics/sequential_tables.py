"""Designed sequential tests kept between processes: half a minute for 500 pairs is spent once.

A file holds the table's arrays, the design they are for and a digest of both; its name tells the
design and the code that built it, so a table of other code is never read. What is damaged, or
something else, is built again.
"""

import io
import zipfile
import zlib
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from foundry_core.evaluation.statistics import sequential, spending
from foundry_core.evaluation.statistics.sequential import SequentialDesign, Table, build_table
from foundry_core.files import json_line, sha256_hex, sha256_of
from foundry_core.home import cache_dir, write_cache

_DTYPES = {"critical": "int16", "cells": "int32", "share": "float64", "error": "float64"}
# RuntimeError: a flag of the archive that asks for a password or an unknown compression.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def designed_table(design: SequentialDesign) -> Table:
    """As `build_table`, from the cache where it has been built before."""
    echo = json_line({"design": asdict(design), "code": _code()})
    path = cache_dir() / "sequential" / f"{design.n_max}-{sha256_hex(echo)[:16]}.npz"
    try:
        return _read(path, design, echo)
    except _DAMAGE:
        table = build_table(design)
    write_cache(path, _packed(table, echo))
    return table


@lru_cache(maxsize=1)
def _code() -> list[str]:
    return [sha256_of(str(module.__file__)) for module in (sequential, spending)]


def _packed(table: Table, echo: str) -> bytes:
    arrays = {name: np.asarray(getattr(table, name), dtype) for name, dtype in _DTYPES.items()}
    sealed = arrays | {"seal": np.array([echo, _digest(arrays, echo)])}
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **sealed)
    return stream.getvalue()


def _read(path: Path, design: SequentialDesign, echo: str) -> Table:
    """One of _DAMAGE for anything but what `_packed` wrote for this design."""
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in _DTYPES}
        seal = stored["seal"].tolist()
    size, count = design.n_max + 1, len(arrays["share"])
    shapes = {"critical": (size, size), "cells": (count, 3), "share": (count,), "error": ()}
    for name, array in arrays.items():
        if (array.shape, array.dtype) != (shapes[name], _DTYPES[name]):
            raise ValueError(f"{path}: {name} is {array.dtype} {array.shape}")
    if seal != [echo, _digest(arrays, echo)]:
        raise ValueError(f"{path}: not what was written for {echo}")
    return Table(
        design=design,
        critical=arrays["critical"],
        cells=arrays["cells"],
        share=arrays["share"],
        error=float(arrays["error"]),
    )


def _digest(arrays: dict[str, np.ndarray], echo: str) -> str:
    return sha256_hex(echo.encode() + b"".join(arrays[name].tobytes() for name in _DTYPES))
