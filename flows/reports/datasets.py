"""Datasets outside a run: loaders to look into, and conversions into a folder of one's own."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.runs.built import built
from flows.runs.planning import Prepared, Request, prepare
from foundry_core.config.overrides import set_path
from foundry_core.config.registry import Registry
from foundry_core.config.suggest import nearest
from foundry_core.config.validation import BY_OVERRIDE, validate
from foundry_core.data.loading.config import DataConfig
from foundry_core.data.sources.base import (
    CAPTION_FORMATS,
    ROBOT_FORMATS,
    TEXT_FORMATS,
    CaptionFormat,
    PathSource,
    RawFormat,
    RobotFormat,
    TextFormat,
)
from foundry_core.errors import FoundryError
from foundry_core.models.config import EncoderConfig
from foundry_core.pipeline.graph import StageNode
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.stage import ArtifactType, InputArtifact, Recipe, StageContext, Upstream

if TYPE_CHECKING:
    from foundry_core.data.loading.build import Sources
    from foundry_core.data.loading.loader import Loader
    from foundry_core.data.loading.shards import CheckedShards
    from foundry_core.data.robot.coverage import FieldCoverage
    from foundry_core.data.statistics.dataset import DatasetStatistics
    from foundry_core.data.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Previewed:
    """coverage: of the normalised fields, for robot data. notes: what its training will say."""

    loader: "Loader"
    tokenizer: "Tokenizer"
    coverage: "Mapping[str, FieldCoverage]"
    notes: Sequence[str] = ()


_PREVIEW_BATCH = 16
_FORMATS: Mapping[str, Registry[Any]] = {
    "convert_text": TEXT_FORMATS,
    "convert_captions": CAPTION_FORMATS,
    "convert_robot": ROBOT_FORMATS,
}
_VOCABULARY_OF = ("tokenizer", "llm", "vlm")  # slots through which a vocabulary is inherited


def stage_loader(request: Request, stage: str) -> "Previewed":
    """What a training stage of a pipeline will read, or has read. Its datasets and tokenizer must
    be built; the models upstream need not be, so that a batch is seen before anything trains."""
    from foundry_core.data.statistics.dataset import DatasetStatistics
    from foundry_core.data.text.tokenizer import Tokenizer

    prepared = prepare(replace(request, only=(stage,)))
    node = prepared.pipeline.stages[stage]
    data: DataConfig | None = getattr(node.recipe, "data", None)
    if data is None:
        reading = [n.name for n in prepared.pipeline.stages.values() if hasattr(n.recipe, "data")]
        raise FoundryError(
            f"stage {stage!r} ({node.kind}) makes no batches",
            f"stages that do: {', '.join(reading)}" if reading else "this pipeline trains nothing",
        )
    read = {modality: node.inputs[modality] for modality in data.modalities}
    vocabulary = _vocabulary(prepared, node)
    measured = list(node.inputs["stats"].values()) if data.robot else []
    words = [vocabulary] if vocabulary else []
    needed = [*(up for named in read.values() for up in named.values()), *words, *measured]
    store = prepared.store
    folders = {name: store.files_path(a) for name, a in built(prepared, needed).items()}
    sources = {
        modality: {label: folders[up] for label, up in named.items()}
        for modality, named in read.items()
    }
    tokenizer = Tokenizer.load(folders[vocabulary]) if vocabulary else Tokenizer.of_bytes()
    statistics = DatasetStatistics.load(folders[measured[0]]) if measured else None
    seed, tokens = prepared.specs[stage].seed, _tokens_per_image(prepared, node)
    made = _previewed(data, sources, tokenizer, statistics, seed, tokens)
    return replace(made, notes=_notes(node, sources.get("robot", {})))


def mix_loader(
    parts: Sequence[str],
    overrides: Sequence[tuple[str, Any]] = (),
    *,
    tokenizer: Path | None = None,
    tokens_per_image: int = 1,
    seed: int = 0,
) -> "Previewed":
    """A mix of shard folders or addresses, "[LABEL=]PLACE[@WEIGHT]" each. Modalities are what the
    folders hold; overrides are paths in the data config. Without a tokenizer, bytes are tokens."""
    from foundry_core.data.inspection.contents import modality_of
    from foundry_core.data.loading.shards import CheckedShards
    from foundry_core.data.statistics.dataset import merge_statistics
    from foundry_core.data.text.tokenizer import Tokenizer

    sources: dict[str, dict[str, str]] = {}
    weights: dict[str, dict[str, float]] = {}
    document: dict[str, Any] = {}
    robots: dict[str, CheckedShards] = {}
    for part in parts:
        label, place, weight = _parsed(part)
        shards = CheckedShards(place)
        modality = modality_of(shards)
        if label in sources.setdefault(modality, {}):
            raise FoundryError(f"two {modality} datasets are called {label!r}", "use LABEL=PLACE")
        sources[modality][label] = place
        config = document.setdefault(modality, {"batch_size": _PREVIEW_BATCH})
        if weight is not None:
            weights.setdefault(modality, {})[label] = weight
        if modality == "robot":
            robots[label] = shards
            config.setdefault("inputs", {"cameras": sorted(_cameras(shards))})
    for modality, given in weights.items():
        document[modality]["weights"] = given
    for path, value in overrides:
        set_path(document, path, value)
    data = validate(DataConfig, document, "data", BY_OVERRIDE)
    if "text" in sources and tokenizer is None:
        raise FoundryError(
            "packed text was encoded by a tokenizer", "name its folder with --tokenizer"
        )
    words = Tokenizer.load(tokenizer) if tokenizer else Tokenizer.train(["bytes"], 258)
    statistics = None
    if data.robot:
        statistics = merge_statistics({k: _statistics(s) for k, s in robots.items()})
    return _previewed(data, sources, words, statistics, seed, tokens_per_image)


def raw_source(
    format_: str | None,
    path: Path,
    overrides: Sequence[tuple[str, Any]] = (),
    hz: float | None = None,
) -> TextFormat | CaptionFormat | RobotFormat:
    """Raw data at a place; without a format, what it looks like. overrides are options of the
    format. hz: in place of one that the format requires, as a mapping states it."""
    from foundry_core.data.inspection.raw import detect

    kind: Any = _format(format_) if format_ else detect(path)
    if issubclass(kind, PathSource) and not path.expanduser().exists():
        raise FoundryError(f"{path} does not exist", "check the path")
    document = dict(kind.options(str(path)))
    rate = kind.model_fields.get("hz")
    if hz is not None and rate is not None and rate.is_required():
        document["hz"] = hz
    for name, value in overrides:
        set_path(document, name, value)
    named = {**document, "format": format_ or kind.model_fields["format"].default}
    source: TextFormat | CaptionFormat | RobotFormat = validate(kind, named, "source", BY_OVERRIDE)
    return source


def _format(name: str) -> type[RawFormat]:
    """FoundryError with the nearest name where there is none."""
    known = formats()
    if name not in known:
        raise FoundryError(f"unknown format {name!r}", nearest(name, known))
    return _FORMATS[known[name]].get(name)


def convert(
    format_: str,
    source: str,
    out: str | Path,
    overrides: Sequence[tuple[str, Any]] = (),
    *,
    tokenizer: Path | None = None,
    cpus: int = 1,
    progress: Any = lambda *args, **values: None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Raw data → shards in `out`, a folder or s3://bucket/prefix, by the stage kind that reads the
    format, with its defaults. Called again after a kill, it goes on.

    overrides are paths in that stage's recipe; `source.*` are options of the format. note: is told
    what the conversion doubts. Returns the stage's metrics. The result is what a pipeline's stage
    would have committed.
    """
    options = _format(format_).options(source)
    stage = stage_kind(formats()[format_])
    document: dict[str, Any] = {"source": {"format": format_, **options}}
    for path, value in overrides:
        set_path(document, path, value)
    recipe = validate(stage.Recipe, document, "recipe", BY_OVERRIDE)
    inputs: dict[str, dict[str, InputArtifact]] = {}
    declared: dict[str, dict[str, Upstream]] = {}
    if tokenizer is not None:
        name, maker = "tokenizer", "train_tokenizer"
        made = InputArtifact(path=tokenizer, stage=name, kind=maker, key="", content="")
        inputs[name] = {name: made}
        declared[name] = {name: Upstream(name=name, kind=maker, recipe=Recipe())}
    stage.check(recipe, declared)
    stage.sources(recipe)  # a source that is not there is named before anything is made
    from foundry_core.data.convert.destination import destination
    from foundry_core.data.convert.doubts import told

    with destination(out, progress) as places:
        context = StageContext(
            name="convert",
            key="",
            seed=0,
            recipe=recipe,
            resources=stage.Resources(cpus=cpus),
            inputs=inputs,
            out=places.out,
            scratch=places.scratch,
            progress=progress,
        )
        metrics = dict(stage.run(context))
        for text in told(places.out.joinpath):
            note(text)
        return metrics


def formats() -> dict[str, str]:
    """Raw formats that can be read → the stage kind that converts them."""
    return {name: kind for kind, registry in _FORMATS.items() for name in registry.names()}


def _statistics(shards: "CheckedShards") -> "DatasetStatistics":
    """Stored beside the shards; recomputed where only others' numbers are, or none."""
    from foundry_core.data.inspection.recompute import dataset_statistics
    from foundry_core.data.statistics.dataset import LEAVES_SUFFIX, DatasetStatistics

    path = shards.beside("stats.json", f"stats{LEAVES_SUFFIX}")
    if path is not None:
        stored = DatasetStatistics.load(path)
        if stored.leaves:
            return stored
    return dataset_statistics(shards.source)


def _vocabulary(prepared: Prepared, node: StageNode) -> str | None:
    """The stage whose tokenizer a training stage's text is encoded with; None for a policy that
    reads no words."""
    for slot in _VOCABULARY_OF:
        for up in node.inputs.get(slot, {}).values():
            found = prepared.pipeline.stages[up]
            if found.stage.output == ArtifactType.TOKENIZER or not found.inputs:
                return up  # an imported model brings its own
            return _vocabulary(prepared, found)
    backbone = getattr(getattr(node.recipe, "model", None), "backbone", None)
    if isinstance(backbone, EncoderConfig) and backbone.text is None:
        return None
    raise FoundryError(
        f"stage {node.name!r} inherits no tokenizer", "connect one to its input 'tokenizer'"
    )


def _tokens_per_image(prepared: Prepared, node: StageNode) -> int:
    """As the stage's model, or the VLM it builds on, says; 1 for text, 0 where images do not stand
    among words."""
    model = getattr(node.recipe, "model", None)
    if isinstance(getattr(model, "backbone", None), EncoderConfig):
        return 0
    for config in (model, getattr(model, "backbone", None)):
        tokens = getattr(config, "tokens_per_image", None)
        if tokens is not None:
            return tokens
    for up in node.inputs.get("vlm", {}).values():
        return _tokens_per_image(prepared, prepared.pipeline.stages[up])
    return 1


def _notes(node: StageNode, robot: Mapping[str, Path]) -> list[str]:
    """Of a policy's training on these datasets."""
    from foundry_core.data.shards.description import read_robot
    from foundry_core.training.words import words_notes

    model = getattr(node.recipe, "model", None)
    if not robot or model is None:
        return []
    return words_notes(model.backbone, [read_robot(place).tasks for place in robot.values()])


def _previewed(
    data: DataConfig,
    sources: "Sources",
    tokenizer: "Tokenizer",
    statistics: "DatasetStatistics | None",
    seed: int,
    tokens_per_image: int,
) -> "Previewed":
    """Adds the special tokens to the tokenizer that training adds, in its order."""
    from foundry_core.data.loading.build import build_loader
    from foundry_core.data.loading.shards import CheckedShards
    from foundry_core.data.robot.coverage import coverage
    from foundry_core.data.robot.normalize import Normalizer
    from foundry_core.data.robot.prompts import IMAGE, OBS
    from foundry_core.data.shards.description import field_meanings

    if data.captions or data.robot:
        tokenizer.add_special(IMAGE)
    normalizer, covered = None, {}
    if data.robot and statistics:
        tokenizer.add_special(OBS)
        normalizer = Normalizer.from_statistics(
            statistics,
            data.robot.inputs.fields,
            data.robot.normalization,
            {
                name: meaning
                for place in sources["robot"].values()
                for name, meaning in field_meanings(CheckedShards(place).info).items()
            },
        )
        covered = coverage(statistics, normalizer)
    loader = build_loader(
        data,
        sources,
        seed=seed,
        tokenizer=tokenizer,
        tokens_per_image=tokens_per_image,
        normalizer=normalizer,
    )
    return Previewed(loader=loader, tokenizer=tokenizer, coverage=covered)


def _parsed(part: str) -> tuple[str, str, float | None]:
    """(label, place, weight) of "[LABEL=]PLACE[@WEIGHT]"."""
    place, at, weight = part.rpartition("@")
    if not at:
        place, weight = part, ""
    label, equals, rest = place.partition("=")
    if not equals:
        label, rest = place.rstrip("/").rpartition("/")[2], place
    try:
        return label, rest, float(weight) if at else None
    except ValueError:
        raise FoundryError(
            f"--mix {part!r}: {weight!r} is not a weight", "e.g. --mix lever=shards/lever@0.7"
        ) from None


def _cameras(shards: Any) -> Mapping[str, Any] | set[str]:
    """Stated, or by the names of the first sample's images in the published layout."""
    if "cameras" in shards.info:
        return shards.info["cameras"]
    members = shards.members(0)
    if "metadata.json" in members:
        named = json.loads(bytes(members["metadata.json"])).get("camera_names")
        if named:
            return set(named)
    return {name.rpartition("_t")[0] for name in members if name.endswith(".jpg")}
