"""A policy by what a person calls it: a folder, an artifact's key or name, a run."""

from contextlib import ExitStack
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.files import read_json
from foundry_core.home import store_uri
from foundry_core.store.base import Store
from foundry_core.store.manifest import MANIFEST, Artifact
from foundry_core.store.open import open_store
from foundry_core.store.references import find
from foundry_core.store.run_records import load_run, run_ids

_FILE = "policy.json"
_KEY_DIGITS = 12


def find_policy(ref: str, open_till_then: ExitStack) -> tuple[Path, str]:
    """(folder, what to call it). RUN/STAGE names one policy of a run; a run that has one needs no
    stage. FoundryError for what is no policy."""
    if Path(ref).is_dir():
        if not (Path(ref) / _FILE).is_file():
            raise FoundryError(f"{ref!r} holds no {_FILE}", "point it at a policy's folder")
        return Path(ref), _name_of(Path(ref).resolve())
    store = open_store(store_uri())
    artifact = policy_artifact(store, ref)
    name = ref if "@" in ref else _called(artifact)
    return open_till_then.enter_context(store.reading(artifact)), name


def _name_of(folder: Path) -> str:
    """As of an artifact where the folder is one of a store, else the folder's own name."""
    try:
        return _called(Artifact.from_json(read_json(folder / MANIFEST)))
    except (OSError, ValueError):
        return folder.name


def _called(artifact: Artifact) -> str:
    return f"{artifact.kind}/{artifact.key[:_KEY_DIGITS]}"


def policy_artifact(store: Store, ref: str) -> Artifact:
    """Of a key, a name or a run."""
    run, _, stage = ref.partition("/")
    if run in run_ids(store.documents):
        return _of_run(store, run, stage)
    try:
        artifact = find(store, ref)
    except FoundryError as error:
        message = f"{ref!r} is no folder, no artifact and no run: {error.message}"
        raise FoundryError(message, error.hint) from None
    if not _is_policy(artifact):
        raise FoundryError(
            f"{_called(artifact)} is no policy: it has no {_FILE}",
            "name a policy, or the run that trained it",
        )
    return artifact


def _of_run(store: Store, run: str, stage: str) -> Artifact:
    stages = load_run(store.documents, run)["stages"]
    found = {}
    for name, one in stages.items():
        artifact = store.read(one["kind"], one["key"])
        if artifact is not None and _is_policy(artifact):
            found[name] = artifact
    if stage in found:
        return found[stage]
    if stage or len(found) != 1:
        listed = ", ".join(f"{run}/{name}" for name in found) or "none"
        raise FoundryError(f"run {run} has these policies: {listed}", "name one of them")
    return next(iter(found.values()))


def _is_policy(artifact: Artifact) -> bool:
    return any(file.path == _FILE for file in artifact.files)
