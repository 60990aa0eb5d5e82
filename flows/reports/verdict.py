"""What the comparison of a run found."""

from typing import TYPE_CHECKING

from foundry_core.errors import FoundryError, printable
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact

if TYPE_CHECKING:  # most runs have none, and a cached one is over before this is loaded
    from flows.runs.engine import RunResult
    from foundry_core.evaluation.comparison.result import Comparison

VERDICTS = ("compare", "verdict")  # the kinds that end in a comparison


def comparison_in(store: Store, artifact: Artifact) -> "Comparison":
    """Of an artifact of such a kind. FoundryError where it has none that can be read."""
    from foundry_core.evaluation.comparison.result import FILE, read_comparison

    path = store.file_path(artifact, FILE)
    if path is None:
        raise FoundryError(
            f"{artifact.kind}/{artifact.key[:12]} has no {FILE}", "run its stage with --force"
        )
    return read_comparison(path)


def settled_comparisons(store: Store, result: "RunResult") -> dict[str, Artifact]:
    """Stage → artifact of the comparisons that a run has built or reused."""
    found = {}
    for stage in result["stages"]:
        settled = stage["attempt"] or stage["action"] == "reuse"
        if stage["kind"] in VERDICTS and settled:
            artifact = store.read(stage["kind"], stage["key"])
            if artifact is not None:
                found[stage["name"]] = artifact
    return found


def verdict_lines(store: Store, result: "RunResult") -> list[str]:
    """The sentences of every comparison that a run has built or reused, as its report begins; of
    one that cannot be read, why."""
    lines = []
    try:
        for artifact in settled_comparisons(store, result).values():
            from foundry_core.evaluation.comparison.sentences import verdict_sentences

            lines += [printable(one) for one in verdict_sentences(comparison_in(store, artifact))]
    # A store may hold anything, and the run has ended well: this is no reason to end otherwise.
    except Exception as error:
        lines.append(printable(f"the comparison cannot be shown: {error or type(error).__name__}"))
    return lines
