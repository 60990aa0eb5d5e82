"""Reference pages of every setting, made from the config models."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import marks as md
from pydantic import BaseModel

from flows.ablation.drivers.base import DRIVERS
from flows.ablation.studies import Study
from flows.dispatch.base import BACKENDS
from foundry_core.config.registry import Registry, one_of
from foundry_core.data.mapping.config import RobotMapping
from foundry_core.data.sources.base import CAPTION_FORMATS, ROBOT_FORMATS, TEXT_FORMATS
from foundry_core.evaluation.benchmarks.base import BENCHMARKS
from foundry_core.evaluation.language.base import QUESTIONS
from foundry_core.evaluation.results.base import RESULT_FORMATS
from foundry_core.models.heads import HEADS
from foundry_core.pipeline.imports import Import
from foundry_core.pipeline.recipe_help import Setting, configs_in, is_tag, setting_of, spelled
from foundry_core.pipeline.registry import stage_kind, stage_kinds
from foundry_core.serving.frontends import FRONTENDS
from foundry_core.serving.mapping import ServingMapping
from foundry_core.serving.options import ServingOptions
from foundry_core.simulation.experts.base import EXPERTS
from foundry_core.training.sinks import SINKS

Model = type[BaseModel]
_HEADS = ("setting", "type", "default", "meaning")


@dataclass(frozen=True)
class OpenSet:
    """An open set with a page of its own. chosen: what a config chooses a member by."""

    registry: Registry[Any]
    page: str
    title: str
    chosen: str


OPEN_SETS = (
    OpenSet(TEXT_FORMATS, "text-formats", "Text formats", "`source.format` of texts"),
    OpenSet(CAPTION_FORMATS, "caption-formats", "Caption formats", "`source.format` of captions"),
    OpenSet(ROBOT_FORMATS, "robot-formats", "Robot formats", "`source.format` of `convert_robot`"),
    OpenSet(QUESTIONS, "question-formats", "Formats of questions", "`questions` of `evaluate_llm`"),
    OpenSet(HEADS, "heads", "Action heads", "`model.head.kind` of `train_vla`"),
    OpenSet(BENCHMARKS, "benchmarks", "Benchmarks", "`benchmark` of `evaluate`, with `options`"),
    OpenSet(EXPERTS, "experts", "Scripted experts", "`expert.kind` of `collect_demos`"),
    OpenSet(SINKS, "sinks", "Metric sinks", "`resources.sinks[].kind` of a training"),
    OpenSet(FRONTENDS, "frontends", "Serving front-ends", "`--frontend` of `foundry policy serve`"),
    OpenSet(RESULT_FORMATS, "result-formats", "Published results", "`foundry eval import --from`"),
    OpenSet(BACKENDS, "dispatch", "Dispatch backends", "`--dispatch` of `foundry run`"),
    OpenSet(DRIVERS, "search-drivers", "Search drivers", "`--driver` of `foundry search`"),
)
_BY_REGISTRY = {id(one.registry): one for one in OPEN_SETS}

DOCUMENTS: Mapping[str, tuple[str, tuple[Model, ...]]] = {
    "documents": ("Imports and studies", (Import, Study)),
    "mappings": ("Mappings", (RobotMapping, ServingMapping)),
    "serving-options": ("Serving options", (ServingOptions,)),
}


@dataclass
class Section:
    """One config of a page, told once however often it stands there."""

    model: Model
    paths: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return md.anchor(self.paths[0])


def documented() -> Iterator[tuple[str, Model]]:
    """(page, config) of everything that the reference shows."""
    for kind in stage_kinds():
        stage = stage_kind(kind)
        yield f"stages/{kind}", stage.Recipe
        yield f"stages/{kind}", stage.Resources
    for one in OPEN_SETS:
        for _, member in _members(one):
            if _is_config(member):
                yield one.page, member
    for page, (_, models) in DOCUMENTS.items():
        yield from ((page, model) for model in models)


def pages() -> Iterator[tuple[str, str, str]]:
    """(path below reference/, title, Markdown), in the order of the navigation."""
    yield "stages/index.md", "Stage kinds", _kinds_page()
    for kind in stage_kinds():
        yield f"stages/{kind}.md", kind, _kind_page(kind)
    for one in OPEN_SETS:
        yield f"{one.page}.md", one.title, _set_page(one)
    for page, (title, models) in DOCUMENTS.items():
        parts = [f"# {title}", *(part for model in models for part in _model(model))]
        yield f"{page}.md", title, "\n\n".join(parts)


def _kinds_page() -> str:
    rows = []
    for kind in stage_kinds():
        stage = stage_kind(kind)
        slots = ", ".join(
            name + (" (optional)" if slot.optional else "") for name, slot in stage.inputs.items()
        )
        rows.append((f"[{kind}]({kind}.md)", md.text(slots), str(stage.output), _summary(stage)))
    return (
        "# Stage kinds\n\nWhat a stage of a pipeline can be: `kind:` of a document, a file of "
        "`tasks/`. `foundry stages` lists them with your own.\n\n"
        + md.table(("kind", "takes", "gives", "what it does"), rows)
    )


def _summary(stage: Any) -> str:
    doc = sys.modules[stage.__module__].__doc__ or ""
    return md.text(" ".join(doc.partition("\n\n")[0].split()))


def _kind_page(kind: str) -> str:
    stage = stage_kind(kind)
    doc = sys.modules[stage.__module__].__doc__
    slots = [
        (
            md.code(name),
            md.text(" or ".join(map(str, slot.types))),
            ", ".join(word for word in ("many", "optional") if getattr(slot, word)),
        )
        for name, slot in stage.inputs.items()
    ]
    parts = [f"# {kind}", md.paragraphs(doc), f"Gives: {stage.output}."]
    parts += [md.table(("input", "takes", ""), slots)] if slots else []
    seeded = "Draws random numbers: `seed` counts." if stage.seeded else "Takes no seed."
    parts += [
        f"{seeded} `foundry stages {kind} --all` shows this page in a terminal; a path below goes "
        "into `-o STAGE.path=value`.",
        "## Recipe",
        "What can change the result; it enters the stage's [identity](../../identity.md).",
        *_sections(stage.Recipe, ""),
        "## Resources",
        "What must not change the result beyond the rounding of floats.",
        *_sections(stage.Resources, "resources."),
    ]
    return "\n\n".join(parts)


def _set_page(one: OpenSet) -> str:
    parts = [f"# {one.title}", f"Chosen by {one.chosen}. An [open set](../extending.md)."]
    for name, member in _members(one):
        parts.append(f"## `{name}` {{#{md.anchor(name)}}}")
        if _is_config(member):
            parts += [
                md.paragraphs(member.__dict__.get("__doc__")),
                *_sections(member, "", named=name),
            ]
        else:
            parts.append(_told(member))
    return "\n\n".join(parts)


def _members(one: OpenSet) -> list[tuple[str, Any]]:
    return [(name, one.registry.get(name)) for name in one.registry.names()]


def _is_config(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, BaseModel)


def _told(member: Any) -> str:
    """Of a member without settings: what its class or its module says."""
    kind = member if isinstance(member, type) else type(member)
    own = kind.__dict__.get("__doc__")
    return md.paragraphs(own or sys.modules[kind.__module__].__doc__)


def _model(model: Model) -> Iterator[str]:
    name = model.__name__
    yield f"## {name} {{#{md.anchor(name)}}}"
    yield md.paragraphs(model.__doc__)
    yield from _sections(model, "", named=name)


def _sections(model: Model, prefix: str, named: str = "") -> Iterator[str]:
    """Tables: of the config itself, then of each one in it. named: goes before their anchors."""
    sections = _collected(model, prefix, named)
    within = {section.model: section for section in sections}
    for section in sections:
        if section.model is not model:
            shown = [path.removeprefix(f"{named}.") if named else path for path in section.paths]
            yield f"### `{shown[0]}` {{#{section.anchor}}}"
            if shown[1:]:
                yield "Also at " + ", ".join(map(md.code, shown[1:])) + "."
            yield md.paragraphs(section.model.__doc__)
        yield _table(section, prefix if section.model is model else "", within)


def _collected(model: Model, prefix: str, named: str) -> list[Section]:
    first = Section(model, [named or prefix.rstrip(".") or "recipe"])
    found: dict[Model, Section] = {model: first}
    pending = [(model, f"{named}." if named else prefix)]
    while pending:
        owner, path = pending.pop(0)
        for name, info in owner.model_fields.items():
            if _open_set(info) is not None:
                continue
            for inner, tag in configs_in(info):
                here = f"{path}{spelled(name, info)}" + (f"[{tag}]" if tag else "")
                if inner in found:
                    found[inner].paths.append(here)
                else:
                    found[inner] = Section(inner, [here])
                    pending.append((inner, f"{here}."))
    return list(found.values())


def _open_set(info: Any) -> OpenSet | None:
    choice = one_of(info.annotation, info.metadata) or _within(info.annotation)
    return _BY_REGISTRY.get(id(choice.registry)) if choice else None


def _within(annotation: Any) -> Any:
    """The open set that a list, mapping or union of its members chooses from."""
    for part in getattr(annotation, "__args__", ()):
        found = one_of(part) or _within(part)
        if found is not None:
            return found
    return None


def _table(section: Section, prefix: str, within: Mapping[Model, Section]) -> str:
    rows = [
        _row(setting_of(name, info, prefix), info, within)
        for name, info in section.model.model_fields.items()
        if not is_tag(section.model, name)
    ]
    return md.table(_HEADS, rows) if rows else "No settings."


def _row(setting: Setting, info: Any, within: Mapping[Model, Section]) -> tuple[str, ...]:
    default = md.code(setting.default) if setting.default else "*required*"
    kind = md.text(setting.type) + _links(info, within)
    return md.code(setting.path), kind, default, md.text(setting.description)


def _links(info: Any, within: Mapping[Model, Section]) -> str:
    """Where what a field holds is told."""
    one = _open_set(info)
    if one is not None:
        return f" ([{one.title.lower()}](PAGE:{one.page}))"
    found: Iterable[tuple[Model, str | None]] = configs_in(info)
    links = [f"[{tag or 'settings'}](#{within[m].anchor})" for m, tag in found if m in within]
    return f" ({', '.join(links)})" if links else ""
