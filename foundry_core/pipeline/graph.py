"""A pipeline as a checked graph of stages."""

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from foundry_core.blobs import is_name
from foundry_core.config.documents import find_pipeline, load_document
from foundry_core.config.overrides import STAGE_KEYS, apply_overrides
from foundry_core.config.suggest import nearest
from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.masking import secrets_in
from foundry_core.pipeline.imports import Imported, import_recipe, import_stage
from foundry_core.pipeline.stage import Recipe, Resources, Slot, Stage, Upstream

StageKinds = Callable[[str], type[Stage]]
Wiring = Mapping[str, Mapping[str, str]]
_LONGEST_NAME = 100
_TOP_KEYS = ("name", "description", "seed", "stages")


@dataclass(frozen=True, kw_only=True)
class StageNode:
    """One validated stage. `inputs` is slot → label → upstream stage name."""

    name: str
    stage: type[Stage]
    recipe: Recipe
    resources: Resources
    seed: int
    inputs: Wiring

    @property
    def kind(self) -> str:
        return self.stage.kind

    def upstream(self) -> list[tuple[str, str, str]]:
        """(slot, label, upstream stage) of every edge into this stage."""
        return [
            (s, label, up) for s, sources in self.inputs.items() for label, up in sources.items()
        ]


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Stages in topological order; equal declarations give equal order. notes: stage → what its
    kind wants the plan's reader to know. views: each stage as those downstream see it."""

    name: str
    seed: int
    stages: Mapping[str, StageNode]
    overrides: tuple[tuple[str, Any], ...] = field(default=())
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    views: Mapping[str, Upstream] = field(default_factory=dict, repr=False)

    @cached_property
    def consumers(self) -> Mapping[str, tuple[str, ...]]:
        table: dict[str, dict[str, None]] = {name: {} for name in self.stages}
        for node in self.stages.values():
            for _, _, up in node.upstream():
                table[up][node.name] = None
        return {name: tuple(names) for name, names in table.items()}

    @property
    def targets(self) -> list[str]:
        """Stages nothing else consumes: what a run is for."""
        return [name for name, consumers in self.consumers.items() if not consumers]

    def with_ancestors(self, names: Iterable[str]) -> set[str]:
        """The named stages and everything upstream of them."""
        wanted: set[str] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            if name not in self.stages:
                raise FoundryError(f"unknown stage {name!r}", nearest(name, self.stages))
            if name not in wanted:
                wanted.add(name)
                pending += [up for _, _, up in self.stages[name].upstream()]
        return wanted


class Shared:
    """What pipelines that are built one after the other have in common: each document is read, each
    stage validated and checked once, however many variants hold it. For one planning: what changes
    on the disk meanwhile is not seen."""

    def __init__(self) -> None:
        self._documents: dict[Path, dict[str, Any]] = {}
        self._nodes: dict[tuple[Any, ...], StageNode] = {}
        self._checked: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._without_secrets: set[tuple[Any, ...]] = set()

    def document(self, path: Path) -> dict[str, Any]:
        """As `load_document`."""
        if path not in self._documents:
            self._documents[path] = load_document(path)
        return self._documents[path]

    def refuse_secrets(self, name: Any, spec: Any, where: str) -> None:
        """FoundryError where a stage's declaration holds one."""
        key = (repr(name), repr(spec))
        if key not in self._without_secrets:
            _refuse_secrets({"stages": {name: spec}}, where)
            self._without_secrets.add(key)

    def node(
        self, name: str, spec: Mapping[str, Any], declared: Mapping[str, type[Stage]], seed: int
    ) -> StageNode:
        """The validated stage of a declaration."""
        key = (name, repr(spec), seed, *declared.items())
        if key not in self._nodes:
            self._nodes[key] = _node(name, spec, declared, seed)
        return self._nodes[key]

    def checked(
        self, node: StageNode, inputs: Mapping[str, Mapping[str, Upstream]]
    ) -> tuple[Upstream, Sequence[str]]:
        """The stage as those downstream see it, and its notes."""
        key = (
            id(node),
            *((s, lb, id(up)) for s, named in inputs.items() for lb, up in named.items()),
        )
        if key not in self._checked:  # what the ids stand for lives as long as they do
            self._checked[key] = (node, inputs, *_checked(node, inputs))
        _, _, view, notes = self._checked[key]
        return view, notes


def load_pipeline(
    name: str | Path,
    overrides: Iterable[tuple[str, Any]] = (),
    *,
    kinds: StageKinds,
    shared: Shared | None = None,
) -> Pipeline:
    """Reads, merges, overrides and checks a pipeline. No side effects, no device is touched.
    shared: for whoever loads several."""
    path, shared = find_pipeline(str(name)), shared or Shared()
    overrides = tuple(overrides)
    document = apply_overrides(shared.document(path), overrides)
    return build_pipeline(
        document, kinds=kinds, where=path.stem, overrides=overrides, shared=shared
    )


def build_pipeline(
    document: Mapping[str, Any],
    *,
    kinds: StageKinds,
    where: str = "pipeline",
    overrides: tuple[tuple[str, Any], ...] = (),
    shared: Shared | None = None,
) -> Pipeline:
    shared = shared or Shared()
    for key in document:
        if key not in _TOP_KEYS:
            raise FoundryError(f"unknown key {where}.{key!r}", nearest(key, _TOP_KEYS))
    stages = document.get("stages") or {}
    _refuse_secrets({key: value for key, value in document.items() if key != "stages"}, where)
    for key, spec in stages.items() if isinstance(stages, Mapping) else ():
        shared.refuse_secrets(key, spec, where)
    name = document.get("name", where)
    _check_name(name, f"{where}.name")
    if not isinstance(stages, Mapping):
        raise FoundryError(f"{where}.stages is not a mapping", "e.g. stages: {llm: {kind: …}}")
    specs = {n: s for n, s in stages.items() if s is not None}
    if not specs:
        raise FoundryError(f"{where}: no stages", "declare at least one under `stages:`")
    seed = _seed(document.get("seed", 0), f"{where}.seed")
    declared = {n: _stage(n, spec, kinds) for n, spec in specs.items()}
    nodes = {n: shared.node(n, spec, declared, seed) for n, spec in specs.items()}
    ordered = _ordered(nodes)
    views, notes = _check(ordered, shared)
    return Pipeline(
        name=name, seed=seed, stages=ordered, overrides=overrides, notes=notes, views=views
    )


def _refuse_secrets(document: Mapping[str, Any], where: str) -> None:
    """Recipes are recorded for good, in manifests and in the lineage: what a key stands for must be
    there to be read."""
    for found in secrets_in(document):
        raise FoundryError(
            f"{where}.{found}: a pipeline holds no secrets, for its recipes are recorded as they "
            "are",
            "take it out, and give it by the environment: a variable, a file such as "
            "~/.aws/credentials or ~/.netrc",
        )


def _check_name(name: Any, where: str) -> None:
    """A pipeline's name is part of its runs' ids, which are names of files."""
    if not isinstance(name, str):
        raise FoundryError(f"{where} = {reprlib.repr(name)}: a name is a text", "e.g. name: demo")
    if not (is_name(name) and name.isprintable() and len(name.encode()) <= _LONGEST_NAME):
        raise FoundryError(
            f"{where} = {reprlib.repr(name)}: a name is no path, begins with no dot, and has 1 to "
            f"{_LONGEST_NAME} bytes that a terminal shows",
            "e.g. name: demo",
        )


def _seed(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise FoundryError(f"{where} = {value!r}: a seed is an integer ≥ 0", "e.g. seed: 0")
    return value


def _stage_seed(name: str, stage: type[Stage], spec: Mapping[str, Any], seed: int) -> int:
    if stage.seeded:
        return _seed(spec.get("seed", seed), f"{name}.seed")
    if "seed" in spec:
        raise FoundryError(f"{name}.seed: kind {stage.kind!r} draws no random numbers", "remove it")
    return 0


def _node(
    name: str, spec: Mapping[str, Any], declared: Mapping[str, type[Stage]], seed: int
) -> StageNode:
    stage = declared[name]
    usable = name.isidentifier() and len(name.encode()) <= _LONGEST_NAME
    if not usable or name in STAGE_KEYS:
        raise FoundryError(f"stage name {name!r} is not usable", "use letters, digits and _")
    for key in spec:
        if key not in STAGE_KEYS:
            raise FoundryError(f"unknown key {name}.{key!r}", nearest(key, STAGE_KEYS))
    recipe: Recipe
    if "import" in spec:
        recipe, stage, seed, inputs = import_recipe(name, spec), import_stage(stage), 0, {}
    else:
        recipe = validate(stage.Recipe, spec.get("recipe"), name)
        seed = _stage_seed(name, stage, spec, seed)
        inputs = _wiring(name, stage, spec.get("inputs") or {}, declared)
    resources = validate(stage.Resources, spec.get("resources"), f"{name}.resources")
    return StageNode(
        name=name, stage=stage, recipe=recipe, resources=resources, seed=seed, inputs=inputs
    )


def _stage(name: str, spec: Any, kinds: StageKinds) -> type[Stage]:
    """The class of a stage, or the one that an import stands for."""
    if not isinstance(spec, Mapping):
        raise FoundryError(f"stage {name!r} is not a mapping", "give it kind, inputs and recipe")
    kind = import_recipe(name, spec).kind if "import" in spec else spec.get("kind")
    if not isinstance(kind, str):
        raise FoundryError(f"stage {name!r} has no kind", "add `kind: <stage kind>`")
    try:
        return kinds(kind)
    except FoundryError as error:
        raise FoundryError(f"stage {name!r}: {error.message}", error.hint) from None


def _wiring(
    name: str, stage: type[Stage], named: Any, declared: Mapping[str, type[Stage]]
) -> dict[str, dict[str, str]]:
    if not isinstance(named, Mapping):
        raise FoundryError(f"{name}.inputs is not a mapping", "e.g. inputs: {text: text}")
    for slot_name in named:
        if slot_name not in stage.inputs:
            raise FoundryError(
                f"stage {name!r} ({stage.kind}) has no input {slot_name!r}",
                nearest(slot_name, stage.inputs),
            )
    wiring: dict[str, dict[str, str]] = {}
    for slot_name, slot in stage.inputs.items():
        where = f"{name}.inputs.{slot_name}"
        sources = _labelled(named.get(slot_name), slot, where)
        if not sources and not slot.optional:
            wanted = " or ".join(slot.types)
            raise FoundryError(
                f"stage {name!r} ({stage.kind}) needs input {slot_name!r}",
                f"name a stage that produces {wanted}",
            )
        for up in sources.values():
            _check_slot(where, slot, up, declared)
        if sources:
            wiring[slot_name] = sources
    return wiring


def _labelled(value: Any, slot: Slot, where: str) -> dict[str, str]:
    """A slot's sources by label; a bare name is its own label. Where only one can stand, what it is
    called tells nothing: the label is then empty."""
    if value is None:
        return {}
    if isinstance(value, str):
        sources = {value: value}
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        sources = {item: item for item in value}
    elif isinstance(value, Mapping) and all(isinstance(v, str) for v in value.values()):
        sources = dict(sorted(value.items()))
    else:
        raise FoundryError(f"{where}: expected a stage name, a list or label: stage", "e.g. llm")
    if slot.many:
        return sources
    if len(sources) > 1:
        raise FoundryError(f"{where} takes one stage, not {len(sources)}", "name one")
    return dict(zip([""], sources.values(), strict=False))


def _check_slot(where: str, slot: Slot, up: str, declared: Mapping[str, type[Stage]]) -> None:
    if up not in declared:
        raise FoundryError(f"{where}: unknown stage {up!r}", nearest(up, declared))
    produced = declared[up].output
    if produced not in slot.types:
        wanted = " or ".join(slot.types)
        raise FoundryError(
            f"{where}: stage {up!r} produces {produced}, the slot takes {wanted}",
            f"connect a stage that produces {wanted}",
        )


def _ordered(nodes: Mapping[str, StageNode]) -> dict[str, StageNode]:
    graph = {name: [up for _, _, up in node.upstream()] for name, node in nodes.items()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise FoundryError(f"the stages form a circle: {circle}", "remove one input") from None
    return {name: nodes[name] for name in order}


def _check(
    stages: Mapping[str, StageNode], shared: Shared
) -> tuple[dict[str, Upstream], dict[str, Sequence[str]]]:
    """Every stage's own cross-checks, upstream first; returns what each states, and its notes."""
    views: dict[str, Upstream] = {}
    notes: dict[str, Sequence[str]] = {}
    for name, node in stages.items():
        inputs = {
            slot: {label: views[up] for label, up in sources.items()}
            for slot, sources in node.inputs.items()
        }
        views[name], found = shared.checked(node, inputs)
        if found:
            notes[name] = found
    return views, notes


def _checked(
    node: StageNode, inputs: Mapping[str, Mapping[str, Upstream]]
) -> tuple[Upstream, Sequence[str]]:
    imported = issubclass(node.stage, Imported)
    try:
        node.stage.check(node.recipe, inputs)
        if not imported:
            node.stage.check_resources(node.recipe, node.resources)
        states = node.stage.states(node.recipe, inputs)
        notes = node.stage.notes(node.recipe, inputs)
    except FoundryError as error:
        raise FoundryError(f"stage {node.name!r}: {error.message}", error.hint) from None
    kind = "import" if imported else node.kind
    view = Upstream(name=node.name, kind=kind, recipe=node.recipe, inputs=inputs, states=states)
    return view, notes
