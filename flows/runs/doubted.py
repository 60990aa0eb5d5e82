"""What a stage doubts of its data, as far as it says so: nothing stops, and nobody is left to find
it out."""

from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact

# Metrics of a conversion, of what is trained on and of what is set aside.
COUNTS = ("doubts", "validation_doubts")


def doubted(store: Store, artifact: Artifact) -> list[str]:
    """A sentence each. Only reports of artifacts whose metrics count some are read."""
    if not any(artifact.metrics.get(name) for name in COUNTS):
        return []
    from foundry_core.data.convert.doubts import told

    try:
        return told(lambda name: store.file_path(artifact, name))
    except (OSError, ValueError, RecursionError):  # the file is the store's
        return []
