"""Where a store keeps trunks, and who uses one.

trunk/<key>/                        the artifact: a checkpoint's state.json and shards
trunks/<family>/<step>-<key>        an empty document for each that there is or will be
work/<key of a stage>/begin         the trunk that the stage under way goes on from
"""

import json
from collections.abc import Iterable
from typing import Any

from foundry_core.errors import printable
from foundry_core.files import json_text
from foundry_core.identity.environment import BUILT_ON, Environment
from foundry_core.pipeline.trunks import KIND, KeptTrunk, family_key
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact, is_key

# Where an artifact's provenance holds them: the keys of the trunks that it left or found where its
# own would be; what it went on from; of a trunk, the stage that left it.
TRUNKS, CONTINUED_FROM, ORIGIN = "trunks", "continued", "origin"
_FOLDER = "trunks"
_MOST_BYTES = 10_000


def kept_trunks(store: Store, family: str) -> list[KeptTrunk]:
    """Those of a family that the store has, damaged ones among them."""
    found = []
    for name in store.documents.names(f"{_FOLDER}/{family}"):
        step, _, key = name.partition("-")
        if step.isdecimal() and is_key(key) and (kept := _kept(store, key, int(step))):
            found.append(kept)
    return found


def _kept(store: Store, key: str, said: int) -> KeptTrunk | None:
    """said: the step by its document, for one whose manifest cannot be read."""
    state = store.state(KIND, key)
    artifact = state.artifact
    if artifact is None:
        if state.status == "missing":
            return None
        return KeptTrunk(
            key=key, identity="", step=said, ground="", origin=key, problem=state.problem
        )
    step, ground = artifact.recipe.get("step"), artifact.recipe.get("ground")
    if not isinstance(step, int) or not isinstance(ground, str):
        return None
    return KeptTrunk(
        key=key,
        identity=artifact.input_content_key,
        step=step,
        ground=ground,
        origin=str(artifact.provenance.get(ORIGIN, "")),
        code_fingerprint=artifact.code_fingerprint,
        built_on=Environment.from_json(artifact.provenance.get(BUILT_ON)),
        problem=state.problem,
    )


def note_trunk(store: Store, artifact: Artifact) -> None:
    """Makes a trunk findable. It counts only once it is committed: written before."""
    store.documents.write(_document(artifact), b"\n")


def forget_trunk(store: Store, artifact: Artifact) -> None:
    """Undoes `note_trunk`; no error for an artifact that is no trunk, or none of ours."""
    if artifact.kind == KIND and isinstance(artifact.recipe.get("step"), int):
        store.documents.delete(_document(artifact))


def _document(artifact: Artifact) -> str:
    contents: dict[str, dict[str, str]] = {}
    for used in artifact.inputs:
        contents.setdefault(used.slot, {})[used.label] = used.content
    family = family_key(
        code=artifact.code,
        recipe=artifact.recipe,
        seed=artifact.seed,
        sources=artifact.sources,
        inputs=contents,
    )
    return f"{_FOLDER}/{family}/{artifact.recipe['step']:012d}-{artifact.key}"


def begin_from(store: Store, key: str, trunk: str) -> None:
    """Says that the stage under way under a key reads a trunk: `gc` leaves it alone."""
    store.documents.write(_begin(key), json_text({"trunk": trunk}).encode())


def trunks_in_use(store: Store, keys: Iterable[str]) -> set[str]:
    """The trunks that stages under way under these keys go on from."""
    return {trunk for key in keys if (trunk := _begun_from(store, key))}


def _begun_from(store: Store, key: str) -> str:
    try:
        said: Any = json.loads(store.documents.read(_begin(key), most=_MOST_BYTES))
        trunk = said["trunk"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return ""
    return trunk if isinstance(trunk, str) and is_key(trunk) else ""


def _begin(key: str) -> str:
    return f"work/{key}/begin"


def continued(artifact: Artifact) -> str:
    """In words, what a training went on from, or why it did not; '' where there was nothing. What a
    manifest says of it may be anything."""
    said = artifact.provenance.get(CONTINUED_FROM)
    if not isinstance(said, dict):
        return ""
    if "refused" in said:
        return printable(str(said["refused"]))
    close = said.get("differs")
    words = "; ".join(map(str, close)) if isinstance(close, list) else str(close or "")
    how = f"not to the bit, with {words}" if words else "as a straight run, to the bit"
    return printable(f"continued {str(said.get('key'))[:12]} from step {said.get('step')}, {how}")


def continued_step(artifact: Artifact) -> int | None:
    """The step that a training went on from; None where it began at zero."""
    said = artifact.provenance.get(CONTINUED_FROM)
    step = said.get("step") if isinstance(said, dict) else None
    return step if isinstance(step, int) and step > 0 else None


def trunks_of(artifact: Artifact) -> list[str]:
    """The trunks that stay as long as this artifact does."""
    named = artifact.provenance.get(TRUNKS)
    return [key for key in named if isinstance(key, str)] if isinstance(named, list) else []
