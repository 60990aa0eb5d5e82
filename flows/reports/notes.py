"""What a training found worth telling and what a conversion doubts, in a report."""

from collections.abc import Mapping
from html import escape

from flows.reports.curves import recorded
from flows.runs.doubted import doubted
from foundry_core.files import read_json
from foundry_core.lineage.records import NOTES
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact

TITLE = "Worth knowing"


def notes_section(store: Store, artifacts: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    """A list of both, by stage; [] of nothing."""
    lines = [
        f"<li>{escape(name)}: {escape(note)}</li>"
        for name, artifact in artifacts.items()
        for note in (
            _noted(store, artifact)
            if artifact.kind.startswith("train_")
            else [f"doubt: {one}" for one in doubted(store, artifact)]
        )
    ]
    return [(TITLE, f"<ul>{''.join(lines)}</ul>")] if lines else []


def _noted(store: Store, artifact: Artifact) -> list[str]:
    """None where the file says anything else: it is the store's."""
    path = recorded(store, artifact, NOTES)
    try:
        found = read_json(path) if path else []
    except (OSError, ValueError, RecursionError):
        return []
    return [note for note in found if isinstance(note, str)] if isinstance(found, list) else []
