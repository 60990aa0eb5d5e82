"""A look at a sample of a dataset, as its own process (`flows.live.sample`) finds it."""

import json
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from flows.live.lineage import opened
from foundry_core.errors import FoundryError
from foundry_core.execution.python import python_command
from foundry_core.store.manifest import is_key

_SECONDS = 60.0
_SHARDS = "manifest.jsonl"


@lru_cache(maxsize=8)  # of some megabytes each
def preview_answer(kind: str, key: str, number: int) -> dict[str, Any]:
    """See `flows.live.sample.sample_of`. FoundryError for what holds no shards."""
    store = opened()
    artifact = store.read(kind, key) if is_key(key) else None
    if artifact is None or not holds_shards(file.path for file in artifact.files):
        raise FoundryError("this artifact holds no shards to look into")
    tokenizer = ""
    for one in artifact.inputs:
        made = store.read(one.kind, one.key) if one.slot == "tokenizer" else None
        if made is not None:
            tokenizer = str(store.files_path(made))
    command = python_command("flows.live.sample", str(store.files_path(artifact)), str(number))
    try:
        done = subprocess.run(
            [*command, tokenizer], capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise FoundryError(f"no sample was read within {_SECONDS:.0f} s") from None
    if done.returncode:
        raise FoundryError("the sample cannot be read", "foundry data validate FOLDER")
    found: dict[str, Any] = json.loads(done.stdout)
    if "error" in found:
        raise FoundryError(found["error"], found["hint"] or "")
    del found["source"]
    return found


def holds_shards(paths: Iterable[str]) -> bool:
    """Whether an artifact with these files can be looked into."""
    return _SHARDS in paths
