"""Studies: ablations that are written down. `foundry ablate NAME` takes one as it takes a pipeline.

They lie in `stage_configs/ablations`, and in folders `ablations` of those in FOUNDRY_PIPELINES.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from flows.ablation.space import Space, dimension
from flows.ablation.variants import AblationRequest, Sample, Variant, axis
from foundry_core.config.documents import CONFIG_ROOT, load_document, pipeline_names
from foundry_core.config.suggest import nearest
from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config

_FOLDER = "ablations"


class Study(Config):
    """What an ablation asks, as a YAML document. Paths are those of overrides."""

    question: str = Field(min_length=1, description="what the verdict answers, in words")
    sizes: str = Field("", description="how much of what is compared, in words")
    pipeline: str = Field(description="that is varied")
    base: dict[str, Any] = Field({}, description="overrides of the base, and so of every variant")
    vary: dict[str, tuple[Any, ...]] = Field(
        {}, description="path → values, crossed with each other"
    )
    variants: dict[str, dict[str, Any]] = Field({}, description="name → overrides")
    space: dict[str, dict[str, Any] | tuple[Any, ...]] = Field(
        {}, description="settings to draw from: [a, b], or {low: 1e-4, high: 1e-2, log: true}"
    )
    sample: int | None = Field(None, ge=1, description="so many variants drawn from the space")
    seeds: int = Field(3, ge=1, description="training runs of each variant")
    evaluation: str | None = Field(
        None, description="stage that is judged; null: the pipeline's only one"
    )

    @property
    def dimensions(self) -> Space:
        """The space. FoundryError for what is none."""
        return {path: dimension(path, stated) for path, stated in self.space.items()}

    def _drawn(self, asked: Sample | None) -> Sample | None:
        """The study's sample with what a person asks for besides."""
        number = asked.number if asked and asked.number else self.sample
        if number is None:
            return None
        space = {**self.dimensions, **(asked.space if asked else {})}
        return Sample(space=space, number=number, seed=asked.seed if asked else 0)

    def request(self, asked: AblationRequest, seeds: int | None = None) -> AblationRequest:
        """The study with what a person asks for besides: more changes of the base, more variants,
        another number of seeds (None: the study's)."""
        return replace(
            asked,
            pipeline=self.pipeline,
            overrides=(*self.base.items(), *asked.overrides),
            vary=(*(axis(path, values) for path, values in self.vary.items()), *asked.vary),
            variants=(
                *(Variant(name=n, overrides=tuple(c.items())) for n, c in self.variants.items()),
                *asked.variants,
            ),
            sample=self._drawn(asked.sample),
            seeds=self.seeds if seeds is None else seeds,
            evaluation=asked.evaluation or self.evaluation,
            question=self.question,
        )


def find_study(name: str) -> Study | None:
    """By name, or by the path of its document; None for a pipeline. FoundryError for what is
    neither, and for a study that is none."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        document = load_document(path)
        return validate(Study, document, path.stem) if "question" in document else None
    known = _studies()
    if name in known:
        return validate(Study, load_document(known[name]), name)
    if name in pipeline_names():
        return None
    raise FoundryError(
        f"unknown pipeline or study {name!r}", nearest(name, [*pipeline_names(), *known])
    )


def study_names() -> list[str]:
    return sorted(_studies())


def _studies() -> dict[str, Path]:
    labs = filter(None, os.environ.get("FOUNDRY_PIPELINES", "").split(os.pathsep))
    folders = [*(Path(lab) / _FOLDER for lab in labs), CONFIG_ROOT / _FOLDER]
    return {path.stem: path for folder in folders for path in folder.glob("*.yaml")}
