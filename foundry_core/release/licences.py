"""What is known of the licences of data: what an installed package says, what the user states."""

import importlib.metadata
from collections.abc import Iterable, Mapping

from foundry_core.errors import FoundryError

UNKNOWN = "not stated"
_CLASSIFIER = "License :: OSI Approved :: "
_LONG = 80


def parse_licences(texts: Iterable[str]) -> dict[str, str]:
    """'SOURCE=LICENCE' each. FoundryError for what is not."""
    found = {}
    for text in texts:
        source, equals, licence = text.partition("=")
        if not (equals and source.strip() and licence.strip()):
            raise FoundryError(f"{text!r} is no licence of a source", "SOURCE=LICENCE")
        found[source.strip()] = licence.strip()
    return found


def licence_of(source: str, stated: Mapping[str, str]) -> str:
    """Of a source by its name in an artifact ('package numpy', 'mujoco', 'lerobot')."""
    if source in stated:
        return stated[source]
    try:
        metadata = importlib.metadata.metadata(source.removeprefix("package ")).json
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return UNKNOWN
    classifiers = metadata.get("classifier", [])
    approved = [one.removeprefix(_CLASSIFIER) for one in classifiers if one.startswith(_CLASSIFIER)]
    candidates = [metadata.get("license_expression"), ", ".join(approved), metadata.get("license")]
    found = next((one for one in candidates if one and len(one) <= _LONG and "\n" not in one), None)
    return f"{found} (its package says)" if found else UNKNOWN
