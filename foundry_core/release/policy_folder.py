"""A policy as a folder of its own: what loading it needs, a model card, and where it came from."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.files import walk, write_atomic, write_json
from foundry_core.models.policy_settings import PolicySettings
from foundry_core.release.ancestry import ancestors, evaluations, lost
from foundry_core.release.card import model_card
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact

CARD = "README.md"
LINEAGE = "lineage.json"
# Of a training, and of no use to whoever runs its result; artifact.json names machines and people.
_LEFT = ("records/", "raw.safetensors", "artifact.json", CARD, LINEAGE)


def export_policy(
    source: Path,
    out: Path,
    name: str,
    *,
    known: tuple[Store, Artifact] | None = None,
    licence: str = "other",
    licences: Mapping[str, str] = {},
) -> None:
    """Writes the folder `out`, which `load_policy` reads. known: the store that has its lineage,
    and its artifact there. FoundryError where `out` holds something, or `source` is no policy."""
    settings = PolicySettings.load(source)
    empty_folder(out)
    for file in sorted(file for file, _ in walk(source)):
        if not file.startswith(_LEFT):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, out / file)
    store, policy = known or (None, None)
    lineage = ancestors(store, policy) if store and policy else []
    gone = lost(lineage)
    card = model_card(
        name,
        settings.contract,
        lineage,
        evaluations(store, policy) if store and policy else [],
        lost=gone,
        licence=licence,
        licences=licences,
    )
    write_atomic(out / CARD, card)
    if lineage:
        write_json(out / LINEAGE, {"artifacts": lineage_of(lineage), "gone": gone})


def empty_folder(out: Path) -> None:
    """Makes it; FoundryError where it is there already, and holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FoundryError(f"{str(out)!r} holds something already", "name a new folder")
    out.mkdir(parents=True, exist_ok=True)


def lineage_of(artifacts: Sequence[Artifact]) -> list[dict[str, Any]]:
    """What may be told of them: nothing of machines, people or places."""
    return [
        {
            "kind": one.kind,
            "key": one.key,
            "content": one.content,
            "code": one.code,
            "code_fingerprint": one.code_fingerprint,
            "commit": (one.provenance.get("git") or {}).get("commit"),
            "uncommitted_changes": bool((one.provenance.get("git") or {}).get("dirty")),
            "seed": one.seed,
            "recipe": dict(one.recipe),
            "sources": dict(one.sources),
            "inputs": [{"slot": i.slot, "kind": i.kind, "key": i.key} for i in one.inputs],
            "created": one.created,
            "run": one.run_id,
        }
        for one in artifacts
    ]
