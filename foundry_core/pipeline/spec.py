"""A stage's identity, computed before it runs.

recipe key: over {schema, kind, code, recipe, seed, sources, inputs by recipe key}.
content key: the same with inputs by CONTENT digest. Two stages with equal content keys compute the
same thing from the same bytes, so an upstream that was rebuilt and came out equal does not cascade.
Resources, paths, hosts and times never enter either.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foundry_core.config.canonical import canonical, digest
from foundry_core.identity.code import Closure, CodeIndex
from foundry_core.pipeline.graph import Pipeline, StageNode
from foundry_core.pipeline.imports import CODE, Import, imported_key
from foundry_core.pipeline.stage import Stage

SCHEMA = 1
InputKeys = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """All that identifies one stage of one pipeline; what baselines are compared with.

    code: the identity that enters the key: a closure digest, or a declared version.
    closure: the digest of the code as it is, recorded also where a declared version decides.
    inputs: slot → label → upstream recipe key.
    """

    name: str
    kind: str
    key: str
    code: str
    closure: str
    functions: Mapping[str, str] = field(repr=False)
    recipe: Mapping[str, Any]
    seed: int
    sources: Mapping[str, str]
    inputs: InputKeys
    upstream: InputKeys

    def content_key(self, contents: InputKeys) -> str:
        """The key over content digests (slot → label → digest) instead of recipe keys."""
        return _digest(self.kind, self.code, self.recipe, self.seed, self.sources, contents)


def identify(
    pipeline: Pipeline, *, code: CodeIndex | None = None, strict_code: bool = False
) -> dict[str, StageSpec]:
    """Every stage's spec, upstream first. `strict_code` lets the closure decide everywhere."""
    index = code or CodeIndex()
    specs: dict[str, StageSpec] = {}
    for name, node in pipeline.stages.items():
        specs[name] = identify_stage(node, specs, index, strict_code)
    return specs


def identify_stage(
    node: StageNode, known: Mapping[str, StageSpec], index: CodeIndex, strict_code: bool
) -> StageSpec:
    """One stage's spec; `known` holds the specs of the stages it reads."""
    if isinstance(node.recipe, Import):
        return _imported(node, node.recipe)
    closure = closure_of(node.stage, index)
    by_closure = strict_code or node.stage.code == "closure"
    code = f"closure:{closure.digest}" if by_closure else _version(node.stage)
    recipe = canonical(node.recipe, node.name)
    sources = dict(sorted(node.stage.sources(node.recipe).items()))
    inputs = {
        slot: {label: known[up].key for label, up in named.items()}
        for slot, named in node.inputs.items()
    }
    return StageSpec(
        name=node.name,
        kind=node.kind,
        key=_digest(node.kind, code, recipe, node.seed, sources, inputs),
        code=code,
        closure=closure.digest,
        functions=closure.functions,
        recipe=recipe,
        seed=node.seed,
        sources=sources,
        inputs=inputs,
        upstream=node.inputs,
    )


def _imported(node: StageNode, recipe: Import) -> StageSpec:
    """External bytes: the pinned digest is all of their identity."""
    return StageSpec(
        name=node.name,
        kind=node.kind,
        key=imported_key(node.kind, recipe.content),
        code=CODE,
        closure="",
        functions={},
        recipe={"digest": recipe.content},
        seed=0,
        sources={},
        inputs={},
        upstream={},
    )


def _version(stage: type[Stage]) -> str:
    """Labs may call a kind alike, and count from 1."""
    lab = "" if stage.__module__.startswith("tasks.") else f"{stage.__module__}:"
    return f"version:{lab}{stage.code}"


def closure_of(stage: type[Stage], index: CodeIndex) -> Closure:
    """The code of a stage's `run`, all that it calls in our packages, and its recipe's methods."""
    recipe = stage.Recipe
    return index.closure(
        stage.__module__, f"{stage.__name__}.run", (recipe.__module__, recipe.__qualname__)
    )


def _digest(
    kind: str,
    code: str,
    recipe: Mapping[str, Any],
    seed: int,
    sources: Mapping[str, str],
    inputs: InputKeys,
) -> str:
    return digest(
        {
            "schema": SCHEMA,
            "kind": kind,
            "code": code,
            "recipe": recipe,
            "seed": seed,
            "sources": sources,
            "inputs": inputs,
        }
    )
