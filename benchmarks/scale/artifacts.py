"""An artifact that nobody built, for stores that are filled without runs."""

from collections.abc import Sequence
from typing import Any

from foundry_core.store.manifest import Artifact, File, content_digest


def artifact(key: str, files: Sequence[File], **more: Any) -> Artifact:
    plain: dict[str, Any] = {
        "kind": "convert_text",
        "key": key,
        "content": content_digest(tuple(files)),
        "input_content_key": key,
        "code": "version:1",
        "code_fingerprint": key,
        "recipe": {},
        "seed": 0,
        "sources": {},
        "inputs": (),
        "files": tuple(files),
        "metrics": {},
        "attempt": "a1",
        "run_id": "r",
        "created": "2026-01-01T00:00:00.000000Z",
        "seconds": 1.0,
    }
    return Artifact(**plain | more)
