"""Names for artifacts (`name@tag`), pins for runs, and finding an artifact by what people type."""

import re
from collections.abc import Sequence
from dataclasses import asdict

from pydantic import TypeAdapter

from foundry_core.blobs import LONGEST_NAME, is_name
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError
from foundry_core.files import json_text
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact, Place
from foundry_core.store.run_records import load_run

_ALIAS = re.compile(r"[A-Za-z0-9][\w.-]*@[A-Za-z0-9][\w.-]*")
_PREFIX_DIGITS = 8
_DOCUMENT_BYTES = 10_000


def alias_document(alias: str) -> str:
    """The document of a name. FoundryError for what is no name."""
    if not (_ALIAS.fullmatch(alias) and is_name(alias)):
        raise FoundryError(
            f"alias {alias!r}: expected name@tag of letters, digits, '_', '.' and '-', "
            f"{LONGEST_NAME} bytes at most",
            "e.g. base-llm@v3",
        )
    return f"aliases/{alias}"


def set_alias(store: Store, alias: str, artifact: Artifact) -> None:
    """`name@tag` means this artifact from now on."""
    place = Place(kind=artifact.kind, key=artifact.key)
    store.documents.write(alias_document(alias), json_text(asdict(place)).encode())


def remove_alias(store: Store, alias: str) -> None:
    """The name means nothing any more. FoundryError when it meant nothing."""
    document, known = alias_document(alias), store.documents.names("aliases")
    if alias not in known:
        raise _unknown(alias, known)
    store.documents.delete(document)


def aliases(store: Store) -> dict[str, Place]:
    """alias → what it means. FoundryError for one that cannot be read."""
    names = filter(_ALIAS.fullmatch, store.documents.names("aliases"))
    return {name: _alias(store, name) for name in names}


def find(store: Store, ref: str) -> Artifact:
    """The committed artifact of an alias, a key, or a unique prefix of one (8 digits or more)."""
    if "@" in ref:
        place = _alias(store, ref)
        artifact = store.read(place.kind, place.key)
        if artifact is None:
            raise FoundryError(
                f"alias {ref!r} means {place.kind}/{place.key[:12]}, which the store lacks",
                "build it again, or `foundry lineage tag` another",
            )
        return artifact
    matches = store.artifacts(ref) if len(ref) >= _PREFIX_DIGITS and is_name(ref) else []
    if not matches:
        raise FoundryError(
            f"the store has no artifact {ref!r}",
            f"give an alias name@tag, or {_PREFIX_DIGITS} digits or more of a key",
        )
    if len(matches) > 1:
        listed = ", ".join(f"{kind}/{key[:16]}" for kind, key in matches[:4])
        raise FoundryError(f"{ref!r} begins {len(matches)} keys: {listed}", "give more digits")
    artifact = store.read(*matches[0])
    if artifact is None:
        raise FoundryError(f"artifact {ref!r} was removed meanwhile", "run again")
    return artifact


def pin(store: Store, run_id: str) -> None:
    """Everything this run used stays, whatever `gc` is asked."""
    load_run(store.documents, run_id)
    store.documents.write(f"pins/{run_id}", json_text({"run_id": run_id}).encode())


def unpin(store: Store, run_id: str) -> None:
    """Lets `gc` have what only this run uses. FoundryError when it is not pinned."""
    known = pins(store)
    if run_id not in known:
        raise FoundryError(f"run {run_id!r} is not pinned", nearest(run_id, known))
    store.documents.delete(f"pins/{run_id}")


def pins(store: Store) -> list[str]:
    """Ids of the pinned runs."""
    return [name for name in store.documents.names("pins") if is_name(name)]


def _alias(store: Store, alias: str) -> Place:
    try:
        data = store.documents.read(alias_document(alias), most=_DOCUMENT_BYTES)
        return TypeAdapter(Place).validate_json(data)
    except FileNotFoundError:
        raise _unknown(alias, store.documents.names("aliases")) from None
    except ValueError:
        raise FoundryError(
            f"alias {alias!r} names no kind and key",
            f"`foundry lineage untag {alias}` removes it; tag the artifact again",
        ) from None


def _unknown(alias: str, known: Sequence[str]) -> FoundryError:
    return FoundryError(f"unknown alias {alias!r}", nearest(alias, known))
