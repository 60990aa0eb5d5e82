"""HDF5 as recordings use it: numbers and pictures in the file itself.

Soft links within the file are followed. Links to other files, datasets whose bytes lie elsewhere
and Python objects are refused: a recording that somebody hands over must not be able to read this
machine's files. Nothing is allocated before its size is known.
"""

import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from foundry_core.data.robot.episodes import Frames, Picture, UnusableEpisode
from foundry_core.data.sources.robot.steps import (
    MAX_CHUNK,
    MAX_FIELD,
    MAX_PICTURE,
    check_bytes,
    check_file,
    check_numbers,
    lowdim,
    metres,
    picture,
    readable,
)

ENDINGS = (".hdf5", ".h5")
_CHUNK_CACHE = 1 << 26
_MAX_DEPTH = 4
_MAX_LINKS = 16
# Of one demonstration: a handful of groups that name each other would otherwise have no end.
_MAX_NAMES = 10_000
_ELSEWHERE = "store the data in the file itself"


def open_file(path: Path) -> h5py.File:
    """Raises UnusableEpisode for what is no HDF5 file, or was not closed. It is closed with the
    last object that came from it."""
    check_file(path)
    with readable(str(path)):
        return h5py.File(path, "r", locking=False, rdcc_nbytes=_CHUNK_CACHE)


def child(group: h5py.Group, path: str) -> Any:
    """Group or dataset at a path below, by hard links and by soft ones within the file. Raises
    UnusableEpisode where there is none, and for links that lead elsewhere, or to each other."""
    found = _follow(group, path, iter(range(_MAX_LINKS)))
    if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
        raise UnusableEpisode(f"{_where(found)} has its data in other files", _ELSEWHERE)
    return found


def _follow(group: h5py.Group, path: str, links: Iterator[int]) -> Any:
    """links: what is left of the soft links that may be followed. HDF5 itself follows each up to
    16 times, but there external ones count as the same."""
    found: Any = group
    for name in filter(None, path.split("/")):
        where = f"{group.file.filename}: {found.name.rstrip('/')}/{name}"
        with readable(where):
            link = found.get(name, getlink=True) if isinstance(found, h5py.Group) else None
            if link is None:
                raise UnusableEpisode(f"{where} does not exist", "is it a recording of this kind?")
            if isinstance(link, h5py.SoftLink):
                if next(links, None) is None:
                    raise UnusableEpisode(
                        f"{where} leads on to more than {_MAX_LINKS} links", "remove the circle"
                    )
                start = found.file if link.path.startswith("/") else found
                target = (part for part in link.path.split("/") if part != ".")
                found = _follow(start, "/".join(target), links)
            elif isinstance(link, h5py.HardLink):
                found = found[name]
            else:
                raise UnusableEpisode(f"{where} is a link ({type(link).__name__})", _ELSEWHERE)
    return found


def names(group: h5py.Group) -> list[str]:
    """Of what lies in a group, as HDF5 lists them."""
    where = f"{group.file.filename}: {group.name}"
    with readable(where):
        found = list(group)
    if not all(isinstance(name, str) for name in found):
        raise UnusableEpisode(f"{where} holds names that are not UTF-8", "rename them")
    return found


def has(group: h5py.Group, name: str) -> bool:
    return name in names(group)


def datasets(group: h5py.Group, skip: Collection[str] = ()) -> Iterator[tuple[str, h5py.Dataset]]:
    """(path below the group, dataset) of all that lies below it, groups named in `skip` left out.
    Datasets of one value have no steps and are passed over."""
    return _datasets(group, skip, 0, iter(range(_MAX_NAMES)))


def _datasets(
    group: h5py.Group, skip: Collection[str], depth: int, left: Iterator[int]
) -> Iterator[tuple[str, h5py.Dataset]]:
    """left: how many names may still be looked at."""
    if depth > _MAX_DEPTH:
        raise UnusableEpisode(f"{group.file.filename}: {group.name} is nested too deep", "mend it")
    for name in names(group):
        if next(left, None) is None:
            raise UnusableEpisode(
                f"{group.file.filename}: below {group.name} are more than {_MAX_NAMES} names",
                "do its links form a circle?",
            )
        if name in skip:
            continue
        found = child(group, name)
        if isinstance(found, h5py.Group):
            for below, dataset in _datasets(found, (), depth + 1, left):
                yield f"{name}/{below}", dataset
        elif isinstance(found, h5py.Dataset):
            with readable(_where(found)):
                # Some types that a file may hold are none of NumPy's: asking for one raises.
                has_steps = bool(found.shape) and found.dtype is not None
            if has_steps:
                yield name, found


def attribute(found: h5py.Group, name: str) -> Any:
    """str, float, bool, ... or None where there is none: writers store text as bytes too."""
    with readable(f"{found.file.filename}: attribute {name!r} of {found.name}"):
        value = found.attrs.get(name)
        if isinstance(value, np.ndarray | np.generic):
            value = value.item()
        return value.decode() if isinstance(value, bytes) else value


def json_attribute(found: h5py.Group, name: str) -> dict[str, Any]:
    """The object in an attribute of JSON text; {} where there is none."""
    text = attribute(found, name)
    if not text:
        return {}
    with readable(f"{found.file.filename}: attribute {name!r} of {found.name}"):
        value = json.loads(text)
    return value if isinstance(value, dict) else {}


def field_values(dataset: h5py.Dataset) -> np.ndarray:
    """[L, D]"""
    where = _where(dataset)
    check_numbers(dataset.dtype, where)
    check_bytes(dataset.shape, dataset.dtype, MAX_FIELD, where)
    with readable(where):
        return lowdim(dataset[()])


def frames(dataset: h5py.Dataset, prepare: Callable[[np.ndarray], np.ndarray]) -> Frames:
    """Pictures [L, H, W, 3], each read when it is asked for; then `prepare`."""
    where = _where(dataset)
    check_bytes(dataset.shape[1:], dataset.dtype, MAX_PICTURE, where)
    _check_chunks(dataset, where)

    def read(step: int) -> Picture:
        at = f"{where} at step {step}"
        with readable(at):
            values = dataset[step]
        return np.ascontiguousarray(prepare(picture(values, at)))

    return Frames(len(dataset), read)


def depth_frames(
    dataset: h5py.Dataset, unit: str | None, prepare: Callable[[np.ndarray], np.ndarray]
) -> Frames[np.ndarray]:
    """Depth [L, H, W] or [L, H, W, 1] in metres, each picture read when it is asked for."""
    where = _where(dataset)
    check_bytes(dataset.shape[1:], dataset.dtype, MAX_PICTURE, where)
    _check_chunks(dataset, where)

    def read(step: int) -> np.ndarray:
        with readable(f"{where} at step {step}"):
            values = dataset[step]
        return np.ascontiguousarray(prepare(metres(values, unit)))

    return Frames(len(dataset), read)


def encoded_frames(dataset: h5py.Dataset, prepare: Callable[[bytes, str], Picture]) -> Frames:
    """Image files in rows of equal length, zeros behind them: uint8 [L, N], or byte strings [L].
    prepare: (file, where) → picture."""
    where = _where(dataset)
    check_bytes(dataset.shape[1:], dataset.dtype, MAX_PICTURE, where)
    _check_chunks(dataset, where)

    def read(step: int) -> Picture:
        at = f"{where} at step {step}"
        with readable(at):
            # No image file ends in a zero byte. (`compress_len` has the cameras in another order.)
            data = bytes(dataset[step]).rstrip(b"\0")
        return prepare(data, at)

    return Frames(len(dataset), read)


def is_encoded(dataset: h5py.Dataset) -> bool:
    rows = dataset.ndim == 2 and dataset.dtype == np.uint8
    return rows or (dataset.ndim == 1 and dataset.dtype.kind == "S")


def _check_chunks(dataset: h5py.Dataset, where: str) -> None:
    """HDF5 unpacks whole chunks."""
    if dataset.chunks:
        check_bytes(dataset.chunks, dataset.dtype, MAX_CHUNK, f"{where}: one chunk")


def _where(dataset: h5py.Dataset) -> str:
    return f"{dataset.file.filename}: {dataset.name}"


def looks_like(path: Path, has_parts: Callable[[h5py.File], bool]) -> bool:
    """Whether the first HDF5 file of a file or folder opens and has the parts of a format."""
    files = [path] if path.is_file() else sorted([*path.glob("*.hdf5"), *path.glob("*.h5")])
    if not files or files[0].suffix not in (".hdf5", ".h5"):
        return False
    try:
        with h5py.File(files[0], "r") as opened:
            return has_parts(opened)
    except (OSError, KeyError, RuntimeError):
        return False
