"""Folders as `save_to_disk` of the library `datasets` writes them (streams, state.json), for where
that is not installed; tests/data/sources/test_tables.py holds them to it where it is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa


def save(folder: Path, table: pa.Table, shards: int = 1, rows: int = 1000) -> Path:
    """One split. rows: of a batch."""
    folder.mkdir(parents=True)
    size = -(-len(table) // shards)
    names = [f"data-{n:05d}-of-{shards:05d}.arrow" for n in range(shards)]
    for n, name in enumerate(names):
        part = table.slice(n * size, size)
        with pa.ipc.new_stream(folder / name, table.schema) as stream:
            stream.write_table(part, max_chunksize=rows)
    state: dict[str, Any] = {"_data_files": [{"filename": name} for name in names]}
    state |= {"_fingerprint": "0", "_split": None, "_output_all_columns": False}
    state |= {"_format_columns": None, "_format_kwargs": {}, "_format_type": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def save_splits(folder: Path, splits: Mapping[str, pa.Table]) -> Path:
    for name, table in splits.items():
        save(folder / name, table)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def pictures(files: Sequence[bytes | None]) -> pa.Array:
    """A column as the feature Image stores it."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": one, "path": None} for one in files], kind)
