"""What every setting of a pipeline is worth, and who said so: a document, `-o`, or nobody."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_core.config.documents import Located, find_pipeline, load_located
from foundry_core.config.overrides import apply_overrides
from foundry_core.pipeline.graph import StageKinds, StageNode, load_pipeline

DEFAULT = "default"
OVERRIDE = "-o"


@dataclass(frozen=True, kw_only=True)
class ResolvedSetting:
    """setting: as an override spells it, within its stage. value: as it was validated. origin: the
    document that has the last word, `-o`, or `default` where nobody said anything."""

    setting: str
    value: Any
    origin: str


def resolved_settings(
    name: str | Path, overrides: Iterable[tuple[str, Any]] = (), *, kinds: StageKinds
) -> dict[str, list[ResolvedSetting]]:
    """Stage → all that is set in it, in the order of its recipe. FoundryError as for a plan."""
    overrides = tuple(overrides)
    pipeline = load_pipeline(name, overrides, kinds=kinds)
    located = [(path, _overridden(value)) for path, value in overrides]
    document = apply_overrides(load_located(find_pipeline(str(name))), located)
    seed = _origins(document.get("seed"))
    return {
        stage: list(_of_stage(node, document["stages"][stage], seed.get("", DEFAULT)))
        for stage, node in pipeline.stages.items()
    }


def _of_stage(
    node: StageNode, said: Mapping[str, Any], pipeline_seed: str
) -> Iterator[ResolvedSetting]:
    if node.stage.seeded and "import" not in said:
        origin = _origins(said.get("seed")).get("", f"{pipeline_seed} (the pipeline's)")
        yield ResolvedSetting(setting="seed", value=node.seed, origin=origin)
    yield from _leaves(node.recipe.model_dump(mode="json"), _origins(said.get("recipe")), "")
    resources = node.resources.model_dump(mode="json")
    yield from _leaves(resources, _origins(said.get("resources")), "resources")


def _leaves(value: Any, origins: Mapping[str, str], path: str) -> Iterator[ResolvedSetting]:
    prefix = f"{path}." if path else ""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, origins, f"{prefix}{key}")
        return
    asked = path.removeprefix("resources.") if path.startswith("resources.") else path
    yield ResolvedSetting(setting=path, value=value, origin=_origin(origins, asked))


def _origin(origins: Mapping[str, str], path: str) -> str:
    """Of a leaf, of what is within it (a list), or of a text that stands for the mapping around
    it (a preset's name)."""
    within = [origin for said, origin in origins.items() if said.startswith(f"{path}.")]
    while path not in origins and "." in path:
        path = path.rpartition(".")[0]
    found = origins.get(path) or origins.get("")
    return found or ", ".join(dict.fromkeys(within)) or DEFAULT


def _origins(said: Any, path: str = "") -> dict[str, str]:
    """Path → who said it, for every value in a part of a located document."""
    if isinstance(said, Located):
        return {path: said.origin}
    items = said.items() if isinstance(said, dict) else enumerate(said or ())
    found: dict[str, str] = {}
    for key, item in items:
        found |= _origins(item, f"{path}.{key}" if path else str(key))
    return found


def _overridden(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _overridden(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_overridden(item) for item in value]
    return None if value is None else Located(value, OVERRIDE)
