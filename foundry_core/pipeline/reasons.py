"""Why a stage's key is another one than a past run's, as data and in words."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, cast

from pydantic import BaseModel

from foundry_core.config.canonical import canonical
from foundry_core.config.validation import spelled
from foundry_core.pipeline.drift import drift_line, drift_phrase
from foundry_core.pipeline.spec import StageSpec

Category = Literal[
    "CONFIG",
    "CODE",
    "INPUT",
    "SOURCE",
    "SEED",
    "MISSING",
    "CORRUPT",
    "FAILED",
    "FORCED",
    "ENVIRONMENT",
]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One cause as data. upstream: the stage at the root of an INPUT change. ENVIRONMENT: what an
    artifact was built on is not what there is now; alone, no reason to build it again."""

    category: Category
    path: str = ""
    old: Any = None
    new: Any = None
    upstream: str | None = None

    @classmethod
    def told(cls, told: Any) -> Self:
        """As an event tells it. Whoever can write to a store can write an event: texts are texts
        here, and what else it says is not read."""
        said = told if isinstance(told, Mapping) else {}
        category, path, upstream = (said.get(name) for name in ("category", "path", "upstream"))
        return cls(
            category=cast(Category, str(category or "")),
            path=str(path or ""),
            old=said.get("old"),
            new=said.get("new"),
            upstream=None if upstream is None else str(upstream),
        )

    def sentence(self) -> str:
        if self.category in ("CONFIG", "SEED"):
            return f"{self.path}: {_short(self.old)} → {_short(self.new)}"
        if self.category == "CODE":
            return f"code changed: {short_names(self.path.split(', '))}"
        if self.category == "INPUT":
            cause = f", because of {self.upstream}" if self.upstream != self.path else ""
            return f"{self.path} changes{cause}"
        if self.category == "SOURCE":
            return f"source {self.path} changed"
        if self.category == "ENVIRONMENT":
            return drift_line([self.phrase()])
        return self.path or self.category.lower()

    def phrase(self) -> str:
        """What differs, of an ENVIRONMENT reason."""
        return drift_phrase(self.path, self.old, self.new)


def sentences(reasons: Iterable[Reason]) -> list[str]:
    """One for each, and one for all that tell of the environment."""
    found = list(reasons)
    said = [reason.sentence() for reason in found if reason.category != "ENVIRONMENT"]
    phrases = [reason.phrase() for reason in found if reason.category == "ENVIRONMENT"]
    return [*said, *([drift_line(phrases)] if phrases else [])]


Explained = Callable[[str], tuple[Reason, ...]]


@dataclass(frozen=True, kw_only=True)
class BaselineStage:
    """A stage of a past run: what reasons are computed against. recipe: as `recipe_json`."""

    kind: str
    key: str
    code: str
    recipe: Mapping[str, Any]
    seed: int
    sources: Mapping[str, str]
    inputs: Mapping[str, Mapping[str, str]]
    upstream: Mapping[str, Mapping[str, str]]
    functions: Callable[[], Mapping[str, str]] = dict
    code_fingerprint: str = ""

    @classmethod
    def of(cls, spec: StageSpec) -> "BaselineStage":
        """A stage of this very pipeline, for another to be explained against."""
        plain = {f.name: getattr(spec, f.name) for f in fields(cls)}
        return cls(**plain | {"recipe": spec.recipe_json, "functions": lambda: spec.functions})


@dataclass(frozen=True, kw_only=True)
class Baseline:
    run_id: str
    stages: Mapping[str, BaselineStage]


def explain(spec: StageSpec, old: BaselineStage | None, explained: Explained) -> tuple[Reason, ...]:
    """Why a stage's key differs from the baseline's, as data; () when it does not differ.
    `explained` says the same of the stages upstream, which may be reused themselves."""
    if old is None or old.key == spec.key:
        return ()
    reasons: list[Reason] = []
    if old.kind != spec.kind:
        reasons.append(Reason(category="CONFIG", path="kind", old=old.kind, new=spec.kind))
    reasons += config_changes(spec.name, old.recipe, spec.recipe_json, spec.recipe)
    if old.seed != spec.seed:
        reasons.append(Reason(category="SEED", path="seed", old=old.seed, new=spec.seed))
    if old.code != spec.code:
        path = ", ".join(differing(old.functions(), spec.functions)) or "declared version"
        reasons.append(Reason(category="CODE", path=path, old=old.code, new=spec.code))
    for source in differing(old.sources, spec.sources):
        before, after = old.sources.get(source), spec.sources.get(source)
        reasons.append(Reason(category="SOURCE", path=source, old=before, new=after))
    reasons += _input_changes(spec, old, explained)
    return tuple(reasons)


def _input_changes(spec: StageSpec, old: BaselineStage, explained: Explained) -> list[Reason]:
    """One INPUT reason per input and root cause."""
    reasons = []
    for slot in sorted({*old.upstream, *spec.upstream}):
        before, after = dict(old.upstream.get(slot, {})), dict(spec.upstream.get(slot, {}))
        if before != after:
            path = f"{spec.name}.inputs.{slot}"
            changed = Reason(category="CONFIG", path=path, old=before or None, new=after or None)
            reasons.append(changed)
            continue
        for label, up in after.items():
            was, now = old.inputs[slot][label], spec.inputs[slot][label]
            if was != now:
                reasons += [
                    Reason(category="INPUT", path=up, old=was, new=now, upstream=root)
                    for root in _roots(up, explained)
                ]
    return reasons


def _roots(name: str, explained: Explained) -> list[str]:
    """The stages where the changes that reach `name` begin: itself, if it changed by itself."""
    reasons = explained(name)
    own = any(reason.category != "INPUT" for reason in reasons)
    upstream = [r.upstream for r in reasons if r.category == "INPUT" and r.upstream]
    return list(dict.fromkeys([*([name] if own or not upstream else []), *upstream]))


def config_changes(path: str, old: Any, new: Any, config: Any = None) -> list[Reason]:
    """Leaf by leaf differences of two canonical values. config: what the new one is of, whose
    fields are named as documents write them."""
    return _changes(path, canonical(old), canonical(new), config)


def _changes(path: str, old: Any, new: Any, config: Any) -> list[Reason]:
    if old is new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            reason
            for key in sorted({*old, *new})
            for written, inner in [_written(config, key)]
            for reason in _changes(f"{path}.{written}", old.get(key), new.get(key), inner)
        ]
    return [] if old == new else [Reason(category="CONFIG", path=path, old=old, new=new)]


def _written(config: Any, key: str) -> tuple[str, Any]:
    """(how a document names what a config holds under a key, what it holds)."""
    if isinstance(config, BaseModel) and key in type(config).model_fields:
        return spelled(key, type(config).model_fields[key]), getattr(config, key)
    return key, config.get(key) if isinstance(config, Mapping) else None


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The names, sorted, under which two mappings do not hold the same."""
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def short_names(functions: Sequence[str], shown: int = 3) -> str:
    """'module:name' paths as names, the first few of them."""
    names = [function.rpartition(":")[2] for function in functions]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
