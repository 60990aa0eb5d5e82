"""What an ablation varies: from `--vary` and `--variant` to named sets of overrides.

A variant is the base pipeline with some values changed. `base` is always there, first, unchanged.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from flows.ablation.space import Change, Space, draw
from foundry_core.config.overrides import parse_override
from foundry_core.config.parsing import parse_yaml
from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.evaluation.design import Design

BASE = "base"
_LONGEST_NAME = 48


@dataclass(frozen=True, kw_only=True)
class Vary:
    """One axis of a grid: a path and the values it takes."""

    path: str
    values: tuple[Any, ...]

    @property
    def text(self) -> str:
        return f"{self.path} ×{len(self.values)}"


@dataclass(frozen=True, kw_only=True)
class Variant:
    name: str
    overrides: tuple[Change, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sample:
    """So many variants drawn at random from a space, where all combinations are too many."""

    space: Space
    number: int
    seed: int = 0

    @property
    def text(self) -> str:
        return f"{self.number} drawn over {', '.join(self.space)}"


def asked_sample(space: Space, number: int | None, seed: int) -> Sample | None:
    """What of a sample a person states; None for nothing. A study may have a space, or a number, of
    its own: what is missing here is its."""
    if not space and number is None and not seed:
        return None
    return Sample(space=space, number=number or 0, seed=seed)


@dataclass(frozen=True, kw_only=True)
class AblationRequest:
    """What a person asks for; the same for CLI, UI and notebook.

    overrides: of the base, and so of every variant. seeds: how many per variant; the i-th adds i
    to the seeds of all stages that train or evaluate, so that data stay the same and are shared;
    first_seed is the first i. sample: variants drawn beside the others. search: which step of a
    search this is, as the lineage records it.
    evaluation: the stage that is compared; default: the base of the pipeline's compare stage,
    else its only evaluation. question: in words, of a study. looks: how often variants are looked
    at while they play, spread over the episodes; None: once, at the end. spending, family: of the
    design that then decides.
    """

    pipeline: str
    overrides: tuple[Change, ...] = ()
    vary: tuple[Vary, ...] = ()
    variants: tuple[Variant, ...] = ()
    sample: Sample | None = None
    seeds: int = 1
    first_seed: int = 0
    search: Mapping[str, Any] | None = None
    evaluation: str | None = None
    alpha: float = 0.05
    strict_code: bool = False
    strict_env: bool = False
    strict_reads: bool = False
    question: str = ""
    looks: int | None = None
    spending: str | None = None
    family: str | None = None

    @property
    def title(self) -> str:
        """'ablation llm.training.tokens ×3': what run lists show."""
        parts = [one.text for one in self.vary]
        parts += [_listed([variant.name for variant in self.variants])] if self.variants else []
        parts += [self.sample.text] if self.sample else []
        parts += [f"seeds ×{self.seeds}"] if self.seeds > 1 else []
        parts += [f"looks ×{self.looks}"] if self.looks else []
        return f"ablation {'; '.join(parts)}"

    @property
    def design(self) -> Design | None:
        """By which variants stop early; None where all play to the end. FoundryError for a design
        without looks, and for several seeds."""
        stated = {"looks": self.looks, "spending": self.spending, "family": self.family}
        given = {name: value for name, value in stated.items() if value is not None}
        if self.looks is None:
            if given:
                raise FoundryError(
                    f"{' and '.join(given)} without looks: nothing is looked at early",
                    "add --looks N",
                )
            return None
        if self.seeds > 1:
            raise FoundryError(
                f"looks with {self.seeds} seeds: a recipe is judged by training runs that all play "
                "to the end, and a look would stop those that differ",
                "look early with one seed, then run --seeds 3 without --looks on what is left",
            )
        return validate(Design, given | {"alpha": self.alpha}, "design")


def parse_vary(text: str) -> Vary:
    """'llm.training.steps=100,200' → the path and its values; each value is YAML."""
    path, equals, values = text.partition("=")
    path = path.strip()
    if not equals or not path or not values.strip():
        raise FoundryError(
            f"--vary {text!r} is not PATH=VALUE,VALUE", "e.g. --vary llm.training.steps=100,200"
        )
    return axis(path, parse_yaml(f"[{values}]", f"--vary {path!r}"))


def axis(path: str, values: Iterable[Any]) -> Vary:
    """FoundryError for a value that is there twice: it would be one variant under two names."""
    values = tuple(values)
    spelled = [json.dumps(value, sort_keys=True, default=str) for value in values]
    twice = next((text for text in spelled if spelled.count(text) > 1), None)
    if twice is not None:
        raise FoundryError(f"--vary {path!r} names the value {twice} twice", "name it once")
    return Vary(path=path, values=values)


def parse_variant(text: str) -> Variant:
    """'small:llm.model.dim=64,llm.model.n_layers=2' → a named set of overrides."""
    name, colon, changes = text.partition(":")
    if not colon or not name.strip() or not changes.strip():
        raise FoundryError(
            f"--variant {text!r} is not NAME:PATH=VALUE,PATH=VALUE",
            "e.g. --variant small:llm.model.dim=64,llm.model.n_layers=2",
        )
    # A comma ends a change only where another PATH= follows: values may be lists and mappings.
    parts = re.split(r",(?=\s*[A-Za-z_][\w.]*=)", changes)
    overrides = tuple(parse_override(part) for part in parts)
    return Variant(name=name.strip(), overrides=overrides)


def expand(
    vary: Sequence[Vary], named: Sequence[Variant], sample: Sample | None = None
) -> list[Variant]:
    """base, the product of all axes, what is drawn, then the named variants. FoundryError for a
    name or a path that is there twice, and for names that cannot be file names."""
    paths = [one.path for one in vary]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise FoundryError(f"--vary {twice!r} is given twice", "give all its values in one --vary")
    variants = [Variant(name=BASE)]
    for values in product(*(one.values for one in vary)) if vary else ():
        variants.append(called(tuple(zip(paths, values, strict=True)), variants))
    for changes in draw(sample.space, sample.number, sample.seed) if sample else ():
        variants.append(called(changes, variants))
    for variant in named:
        if variant.name != _safe(variant.name):
            raise FoundryError(
                f"variant name {variant.name!r} is not usable",
                f"at most {_LONGEST_NAME} letters, digits and any of . _ - = , +",
            )
        if variant.name in {known.name for known in variants}:
            raise FoundryError(
                f"two variants are called {variant.name!r}", "every variant needs its own name"
            )
        variants.append(variant)
    return variants


def called(changes: tuple[Change, ...], known: Sequence[Variant]) -> Variant:
    """A variant named after what it changes, unlike all that are known."""
    shown = _short_paths([path for path, _ in changes])
    name = ",".join(f"{shown[path]}={_spell(value)}" for path, value in changes)
    return Variant(name=_unique(_safe(name), known), overrides=changes)


def _listed(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names) if len(names) <= most else f"{len(names)} variants"


def _short_paths(paths: Sequence[str]) -> dict[str, str]:
    """Every path by its last word, or by as many as make it unlike the others."""
    shown = {}
    for path in paths:
        words = path.split(".")
        for count in range(1, len(words) + 1):
            suffix = ".".join(words[-count:])
            rivals = [other for other in paths if f".{other}".endswith(f".{suffix}")]
            if len(rivals) == 1:
                break
        shown[path] = suffix
    return shown


def _spell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), sort_keys=True, default=str)


def _safe(name: str) -> str:
    """Usable as a label, in a file name and in a stage's name alike."""
    return re.sub(r"[^\w.=,+-]+", "_", name).strip("_")[:_LONGEST_NAME] or "variant"


def _unique(name: str, known: Sequence[Variant]) -> str:
    taken, count, candidate = {variant.name for variant in known}, 2, name
    while candidate in taken:
        candidate, count = f"{name}-{count}", count + 1
    return candidate
