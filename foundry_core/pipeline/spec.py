"""A stage's identity, computed before it runs.

recipe key: over {schema, kind, code, recipe, seed, sources, inputs by recipe key}.
input-content key: the same with inputs by CONTENT digest. Two stages with equal ones compute the
same thing from the same bytes, so an upstream that was rebuilt and came out equal does not cascade.
Resources, paths, hosts and times never enter either.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel

from foundry_core.config.canonical import Json, canonical, canonical_bytes, digest, locations
from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.identity.code import CodeFingerprint, CodeIndex, fingerprint, sharing
from foundry_core.identity.sources import is_remote
from foundry_core.pipeline.graph import Pipeline, StageNode
from foundry_core.pipeline.imports import CODE, Import, imported_key
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.stage import FINGERPRINT, Recipe, Stage

SCHEMA = 1
# slot → label → a key, a digest or a stage's name.
ByInput: TypeAlias = Mapping[str, Mapping[str, str]]


def identity_key(
    *,
    kind: str,
    code: str,
    recipe: Mapping[str, Json],
    seed: int,
    sources: Mapping[str, str],
    inputs: ByInput,
) -> str:
    """The key of a stage that is this: over the keys of its inputs, or over their contents."""
    identity = {
        "schema": SCHEMA,
        "kind": kind,
        "code": code,
        "recipe": recipe,
        "seed": seed,
        "sources": sources,
        "inputs": inputs,
    }
    return digest(identity)


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """All that identifies one stage of one pipeline; what baselines are compared with.

    code: what enters the key: the code fingerprint, or a declared version.
    code_fingerprint: the digest of the code as it is, also where a declared version decides.
    recipe: the validated settings; recipe_bytes: what of them is identity, as canonical JSON.
    inputs: the upstream recipe keys; upstream: the upstream stages.
    packages, variables: what the code imports from elsewhere and reads of the environment.
    """

    name: str
    kind: str
    key: str
    code: str
    code_fingerprint: str
    functions: Mapping[str, str] = field(repr=False)
    recipe: Recipe
    recipe_bytes: bytes = field(repr=False)
    seed: int = 0
    sources: Mapping[str, str] = field(default_factory=dict)
    inputs: ByInput = field(default_factory=dict)
    upstream: ByInput = field(default_factory=dict)
    packages: Sequence[str] = field(default=(), repr=False)
    variables: Sequence[str] = field(default=(), repr=False)

    @cached_property
    def recipe_json(self) -> dict[str, Json]:
        """What of the recipe is identity: what baselines and manifests keep."""
        return json.loads(self.recipe_bytes)

    def input_content_key(self, contents: ByInput) -> str:
        """The key over content digests instead of recipe keys."""
        return identity_key(
            kind=self.kind,
            code=self.code,
            recipe=self.recipe_json,
            seed=self.seed,
            sources=self.sources,
            inputs=contents,
        )

    def to_json(self) -> dict[str, Any]:
        """For a process that runs the stage. Recipes travel in the one spelling of the key: what it
        does not tell apart, a stage does not see."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "recipe_bytes"}
        recipe = canonical(self.recipe.model_dump(mode="json"), self.name)
        return plain | {"recipe": recipe, "recipe_json": self.recipe_json}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "StageSpec":
        """Raises FoundryError when the kind's recipe does not accept the data, and for an unknown
        or missing field."""
        names = {f.name for f in fields(cls)} - {"recipe_bytes"} | {"recipe_json"}
        check_fields("the spec of a stage", data, names)
        plain = {name: data[name] for name in names - {"recipe_json"}}
        recipe = Import if data["code"] == CODE else stage_kind(data["kind"]).Recipe
        plain["recipe"] = validate(recipe, data["recipe"], data["name"])
        return cls(**plain, recipe_bytes=canonical_bytes(data["recipe_json"]))


def check_fields(what: str, data: Mapping[str, Any], names: set[str]) -> None:
    """Raises FoundryError unless JSON from another process has exactly these fields."""
    strange = data.keys() ^ names
    if strange:
        raise FoundryError(
            f"{what} has exactly the fields {', '.join(sorted(names))}; "
            f"wrong here: {', '.join(sorted(strange))}",
            "jobs are written by the coordinator: run the same version of foundry on both sides",
        )


class Identified:
    """What is known of stages of pipelines that are identified one after the other: of each the
    sources, and the spec on each of its inputs."""

    def __init__(self) -> None:
        self.sources: dict[int, Mapping[str, str]] = {}
        self.specs: dict[tuple[Any, ...], StageSpec] = {}
        self.nodes: list[StageNode] = []  # whose ids the others are by


def identify(
    pipeline: Pipeline,
    *,
    code: CodeIndex | None = None,
    strict_code: bool = False,
    known: Identified | None = None,
) -> dict[str, StageSpec]:
    """Every stage's spec, upstream first. `strict_code` lets the fingerprint decide everywhere.
    known: for whoever asks of several pipelines that share stages, always with one `strict_code`.
    """
    index, known = code or CodeIndex(), known or Identified()
    new = [node for node in pipeline.stages.values() if id(node) not in known.sources]
    sources = _all_sources(new, index)
    known.nodes += new
    known.sources |= {id(node): sources[node.name] for node in new}
    specs: dict[str, StageSpec] = {}
    for name, node in pipeline.stages.items():
        key = (id(node), *(specs[up].key for _, _, up in node.upstream()))
        if key not in known.specs:
            known.specs[key] = _identified(node, specs, index, strict_code, known.sources[id(node)])
        specs[name] = known.specs[key]
    return specs


def identify_stage(
    node: StageNode, known: Mapping[str, StageSpec], index: CodeIndex, strict_code: bool
) -> StageSpec:
    """One stage's spec; `known` holds the specs of the stages it reads."""
    sources = _all_sources([node], index)
    return _identified(node, known, index, strict_code, sources[node.name])


def _all_sources(nodes: Iterable[StageNode], index: CodeIndex) -> dict[str, Mapping[str, str]]:
    """Stage → its sources. FoundryError that names all stages whose sources cannot be read, and the
    settings that say where they lie: whoever sets a pipeline up hears of all of them at once."""
    found: dict[str, Mapping[str, str]] = {}
    problems: list[tuple[StageNode, FoundryError]] = []
    for node in nodes:
        if isinstance(node.recipe, Import):  # its digest is all of its identity
            found[node.name] = {}
            continue
        try:
            with sharing(index):
                found[node.name] = node.stage.sources(node.recipe)
        except FoundryError as error:
            problems.append((node, error))
    if not problems:
        return found
    told = "; ".join(f"stage {node.name!r}: {error.message}" for node, error in problems)
    raise FoundryError(told, _where_to_set(problems)) from problems[0][1]


def _where_to_set(problems: Sequence[tuple[StageNode, FoundryError]]) -> str:
    """The settings that name nothing that is there; of a stage without any its error's own hint."""
    places: list[str] = []
    others: dict[str, None] = {}
    for node, error in problems:
        absent = [
            f"{node.name}.{path}"
            for path, value in locations(node.recipe)
            if not is_remote(value) and not Path(value).expanduser().exists()
        ]
        places += absent
        if not absent and error.hint:
            others[error.hint] = None
    where = f"set {', '.join(places)} to where the data lie" if places else ""
    return "; ".join(part for part in (where, *others) if part)


def _identified(
    node: StageNode,
    known: Mapping[str, StageSpec],
    index: CodeIndex,
    strict_code: bool,
    sources: Mapping[str, str],
) -> StageSpec:
    if isinstance(node.recipe, Import):
        return _imported(node, node.recipe)
    found = stage_fingerprint(node.stage, node.recipe, index)
    declared = node.stage.code != FINGERPRINT and not strict_code
    code = _version(node.stage) if declared else fingerprint_code(found)
    inputs = {
        slot: {label: known[up].key for label, up in named.items()}
        for slot, named in node.inputs.items()
    }
    spec = StageSpec(
        name=node.name,
        kind=node.kind,
        key="",
        code=code,
        code_fingerprint=found.digest,
        functions=found.functions,
        recipe=node.recipe,
        recipe_bytes=canonical_bytes(node.recipe, node.name),
        seed=node.seed,
        sources=dict(sorted(sources.items())),
        inputs=inputs,
        upstream=node.inputs,
        packages=found.packages,
        variables=found.variables,
    )
    return replace(spec, key=spec.input_content_key(inputs))


def _imported(node: StageNode, recipe: Import) -> StageSpec:
    """External bytes: the pinned digest is all of their identity."""
    return StageSpec(
        name=node.name,
        kind=node.kind,
        key=imported_key(node.kind, recipe.content),
        code=CODE,
        code_fingerprint="",
        functions={},
        recipe=recipe,
        recipe_bytes=canonical_bytes({"digest": recipe.content}),
    )


def _version(stage: type[Stage]) -> str:
    """Labs may call a kind alike, and count from 1."""
    lab = "" if stage.__module__.startswith("tasks.") else f"{stage.__module__}:"
    return f"version:{lab}{stage.code}"


def fingerprint_code(found: CodeFingerprint) -> str:
    """`StageSpec.code` of a stage without a declared version."""
    return f"{FINGERPRINT}:{found.digest}"


def stage_fingerprint(stage: type[Stage], recipe: Recipe, index: CodeIndex) -> CodeFingerprint:
    """The code of a stage's `run`, all that it calls in our packages, and the methods of every
    config in its recipe: which members of open sets those are is known only from the recipe."""
    classes = {(kind.__module__, kind.__qualname__) for kind in config_classes(recipe)}
    entry = f"{stage.__name__}.run"
    return fingerprint(stage.__module__, entry, methods_of=classes, index=index)


def config_classes(value: Any) -> Iterator[type]:
    """The class of each config and enum in a recipe's values, itself included."""
    if isinstance(value, BaseModel):
        yield type(value)
        for name in type(value).model_fields:
            yield from config_classes(getattr(value, name))
    elif isinstance(value, Enum):
        yield type(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from config_classes(item)
    elif isinstance(value, (list, tuple, frozenset)):
        for item in value:
            yield from config_classes(item)
