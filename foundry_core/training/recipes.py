"""What the kinds of training stages share. No torch: planning imports this."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field

from foundry_core.config.canonical import OmitWhen
from foundry_core.config.suggest import nearest
from foundry_core.data.config import Size
from foundry_core.data.contract.statements import DataContract
from foundry_core.errors import FoundryError
from foundry_core.models.config import (
    BackboneConfig,
    EncoderConfig,
    HFConfig,
    LoRAConfig,
    TransformerConfig,
    VLMConfig,
    weight_sources,
)
from foundry_core.pipeline.stage import Config, Fact, Stage, StageContext, Trunk, Upstream, Work
from foundry_core.training.config import (
    MODALITIES,
    TrainingConfig,
    TrainResources,
    check_divides,
    check_fp8_resources,
    check_gpus,
    check_micro_batch,
)
from foundry_core.training.trunk import trunk_of

if TYPE_CHECKING:
    from foundry_core.training.distributed import World
    from foundry_core.training.stages.job import Training

Inputs = Mapping[str, Mapping[str, Upstream]]

Frozen = Annotated[
    tuple[str, ...],
    Field(description="patterns of parameters that stay as they are: vision.*, backbone.* ..."),
]
LrScale = Annotated[
    dict[str, float],
    Field(
        description="pattern of parameters → factor on their learning rate; the longest that "
        "matches counts"
    ),
]
FreshAdapters = Annotated[
    LoRAConfig | None,
    OmitWhen(None),
    Field(description="adapters on the model, the rest of which is frozen; null: none"),
]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a model before it is trained; None is not known, as of an imported one.

    model: its architecture, the language part with a row for every token. tokens: those of its
    tokenizer. image_size: side of the squares that its tower takes, None also of towers that
    resize. tokenizer: the stage whose vocabulary it has. own_tokenizer: that stage is the one that
    makes the model.
    """

    model: Config | None = None
    tokens: int | None = None
    image_size: int | None = None
    tokenizer: str | None = None
    own_tokenizer: bool = False

    @property
    def n_layers(self) -> int | None:
        """Of its language part, which a head may tap."""
        part = self.model.language if isinstance(self.model, VLMConfig) else self.model
        return getattr(part, "n_layers", None)

    def adding(self, *tokens: str) -> Self:
        """With these tokens in its vocabulary; they take rows of the padding first."""
        if self.tokens is None:
            return self
        count = self.tokens + len(tokens)
        return replace(self, tokens=count, model=with_rows(self.model, count))


def with_rows(model: Config | None, tokens: int) -> Config | None:
    """The model with a row of its embedding for each of so many tokens. One of a checkpoint that is
    not read yet stays as it is."""
    if isinstance(model, VLMConfig):
        return model.model_copy(update={"language": with_rows(model.language, tokens)})
    if isinstance(model, EncoderConfig):
        return model.model_copy(update={"text": with_rows(model.text, tokens)})
    if model is None or not hasattr(model, "vocab_size") or getattr(model, "has_weights", False):
        return model
    return model.model_copy(update={"vocab_size": max(model.vocab_size or 0, tokens)})


def facts_of(
    inputs: Inputs, slot: str, described: Config | None, size: int | None, *added: str
) -> ModelFacts:
    """Of a model that builds on the one in `slot`, or else is what its recipe describes. size: of
    its images, None: the upstream model's. added: tokens that the stage adds."""
    upstream = next(iter(inputs.get(slot, {}).values()), None)
    if upstream is None:
        tokenizer = next(iter(inputs.get("tokenizer", {}).values()), None)
        found = ModelFacts(
            model=described,
            tokens=getattr(tokenizer.recipe, "vocab_size", None) if tokenizer else None,
            image_size=size,
            tokenizer=tokenizer.name if tokenizer else None,
        )
        return found.adding(*added)
    known = upstream.states if isinstance(upstream.states, ModelFacts) else ModelFacts()
    if known.own_tokenizer:
        known = replace(known, tokenizer=upstream.name, own_tokenizer=False)
    return (known if size is None else replace(known, image_size=size)).adding(*added)


def image_size_of(backbone: BackboneConfig | None) -> int | None:
    """Side of the squares that it must be fed; None: not known, or any (hf_vlm resizes itself)."""
    return backbone.image_size if isinstance(backbone, VLMConfig | EncoderConfig) else None


def check_vocabulary_size(where: str, language: Config | None, inputs: Inputs, *added: str) -> None:
    """A stated vocabulary is the rows of the table: it may be padded beyond the tokens, those that
    the stage adds among them, and must hold all of them."""
    size = getattr(language, "vocab_size", None)
    for tokenizer in inputs.get("tokenizer", {}).values():
        tokens = getattr(tokenizer.recipe, "vocab_size", None)
        if not isinstance(language, TransformerConfig) or not size or not tokens:
            continue
        if size < tokens + len(added):
            more = f" and {', '.join(added)}" if added else ""
            raise FoundryError(
                f"{where}.vocab_size = {size} is less than the {tokens} tokens of "
                f"{tokenizer.name!r}{more}",
                "leave vocab_size out, or raise it: rows beyond the tokenizer's are padding",
            )


def check_pictures(
    dataset: str, sizes: Mapping[str, Size | None], wanted: Size | None, facts: ModelFacts
) -> None:
    """sizes: camera → stored size; wanted: what the loader makes of them, None: nothing.
    FoundryError where a tower would be fed other sizes than it takes."""
    if facts.image_size is None:
        return
    side = facts.image_size
    for camera, stored in sizes.items():
        size = wanted or stored
        if size is not None and tuple(size) != (side, side):
            raise FoundryError(
                f"camera {camera!r} of {dataset} reaches the vision tower at {size[0]}x{size[1]}, "
                f"which takes {side}x{side}",
                f"set image.size to [{side}, {side}] in the stage's data, or convert to it",
            )


def check_texts(inputs: Inputs, facts: ModelFacts) -> None:
    """Texts must be encoded with the tokenizer whose vocabulary the model has."""
    for label, text in inputs.get("text", {}).items():
        for tokenizer in text.inputs.get("tokenizer", {}).values():
            if facts.tokenizer is not None and tokenizer.name != facts.tokenizer:
                raise FoundryError(
                    f"text dataset {label!r} is encoded with tokenizer {tokenizer.name!r}, the "
                    f"model has the vocabulary of {facts.tokenizer!r}",
                    "convert the text with the model's tokenizer",
                )


def check_captions(recipe: Any, inputs: Inputs, facts: ModelFacts) -> None:
    """Images of captions against the tower."""
    data = recipe.data.captions
    if data is None:
        return
    if data.packing is not None and facts.model is not None:
        check_packing(_reads_packed_rows(facts.model))
        _check_row(data.images, data.max_tokens, data.packing.length, facts.model)
    for label, captions in inputs.get("captions", {}).items():
        stated = captions.states
        cameras = stated.cameras if isinstance(stated, DataContract) else {}
        for name in data.images or () if cameras else ():
            if name not in cameras:
                raise FoundryError(
                    f"caption dataset {label!r} has no image {name!r}", nearest(name, cameras)
                )
        sizes = {name: cameras[name].size for name in data.images or cameras if name in cameras}
        check_pictures(f"captions {label!r}", sizes or {"image": None}, data.image.size, facts)


def check_packing(reads: bool) -> None:
    """Packed captions need a model that reads them."""
    if not reads:
        raise FoundryError(
            "data.captions.packing is set, and models whose language part is transformers' do not "
            "read packed rows with images",
            "leave packing out, or train a VLM with a language model of ours",
        )


def _reads_packed_rows(model: Config) -> bool:
    part = model.language if isinstance(model, VLMConfig) else model
    return not isinstance(part, HFConfig)


def _check_row(images: Collection[str] | None, text: int, length: int, model: Config) -> None:
    """A packed row holds the longest sample that there can be, of which all but the last token is
    read."""
    if not isinstance(model, VLMConfig) or images is None:
        return
    longest = len(images) * model.tokens_per_image + text - 1
    if longest > length:
        raise FoundryError(
            f"captioned samples have up to {longest} tokens with those of {len(images)} images, "
            f"data.captions.packing.length is {length}",
            f"set it to {longest} or more, or lower data.captions.max_tokens",
        )


class TrainStage(Stage):
    """A kind whose recipe has `model`, `data` and `training`: pretrained weights that the model
    names are sources, and the data's modalities must be connected."""

    code = "1"
    Resources = TrainResources
    parts: ClassVar[tuple[str, ...]] = ("language", "vision", "head")

    @classmethod
    def sources(cls, recipe: Any) -> Mapping[str, str]:
        return weight_sources(recipe.model)

    @classmethod
    def steps(cls, recipe: Any, fact: Fact) -> int | None:
        """Optimizer steps of the budget; None where they are not known yet."""
        steps: int = recipe.training.total_steps(samples_per_step=recipe.data.samples_per_step)
        return steps

    @classmethod
    def trunk(cls, recipe: Any, resources: TrainResources, fact: Fact) -> Trunk | None:
        return trunk_of(recipe, resources, cls.steps(recipe, fact))

    @classmethod
    def numerics(cls, resources: TrainResources) -> Mapping[str, str]:
        split = {
            "workers": resources.workers if resources.workers > 1 else None,
            "strategy": resources.strategy if resources.workers > 1 else None,
            "shard_size": resources.shard_size,
            "micro_batch": resources.micro_batch,
        }
        # Compiled, the second run of a block may be fused in another way than the first.
        again = {"recompute": ",".join(sorted(resources.recompute))} if resources.recompute else {}
        # A GPU adds without the threads of its process.
        threads = {} if resources.gpus else {"threads": str(resources.cpus)}
        return threads | again | {name: str(value or "none") for name, value in split.items()}

    @classmethod
    def check_resources(cls, recipe: Any, resources: TrainResources) -> None:
        workers, parts = resources.workers, recipe.data.modalities
        check_gpus(resources.gpus, workers)
        check_fp8_resources(recipe.training.fp8, resources.gpus)
        for name, part in parts.items():
            check_divides(part.batch_size, workers, name)
        sizes = {name: part.batch_size // workers for name, part in parts.items()}
        check_micro_batch(sizes, resources.micro_batch)
        for name in resources.recompute:
            if name not in cls.parts:
                raise FoundryError(
                    f"resources.recompute names {name!r}, which a {cls.kind} model does not have",
                    f"its parts with blocks are {', '.join(cls.parts)}",
                )
        if recipe.training.precision == "bf16_weights" and resources.strategy == "ddp":
            raise FoundryError(
                "training.precision bf16_weights needs fp32 weights beside the copies that are "
                "computed with, which resources.strategy ddp does not keep",
                "set resources.strategy to fsdp (one worker, too), or precision to bf16",
            )

    @staticmethod
    def training(ctx: StageContext, world: "World") -> "Training":
        """What `run` carries out, built and not begun: `foundry profile` takes its steps apart."""
        raise FoundryError(
            f"stage {ctx.name!r} is of a kind that does not say how its training is built",
            "let the kind's class have a static method training(ctx, world)",
        )

    @classmethod
    def architecture(cls, recipe: Any, inputs: Inputs) -> Config | None:
        """The model that it trains, with all sizes that follow from its inputs; None where they are
        known to nobody yet. Called after `check`."""
        facts = cls.states(recipe, inputs)
        return facts.model if isinstance(facts, ModelFacts) else None

    @classmethod
    def work(cls, recipe: Any, inputs: Inputs) -> Work | None:
        """FLOPs where the sizes of the model are known without torch, else samples."""
        from foundry_core.training.sizing.stages import training_work

        return training_work(cls, recipe, inputs)

    @classmethod
    def expected_seconds(
        cls, recipe: Any, resources: TrainResources, inputs: Inputs
    ) -> float | None:
        from foundry_core.training.sizing.stages import expected_seconds

        return expected_seconds(cls, recipe, resources, inputs)

    @classmethod
    def check(cls, recipe: Any, inputs: Inputs) -> None:
        recipe.data.check_labels({name: list(inputs.get(name, {})) for name in MODALITIES})
        if recipe.training.validation is not None and not _held_out(inputs):
            raise FoundryError(
                "training.validation is set, and no dataset of this training is converted with a "
                "split",
                "give a conversion `split: {fraction: 0.05}`, or leave training.validation out",
            )

    @classmethod
    def notes(cls, recipe: Any, inputs: Inputs) -> list[str]:
        return [
            *_notes_of_validation(recipe, inputs),
            *_notes_of_adapters(cls, recipe, inputs),
            *_notes_of_fp8(recipe.training),
        ]

    @classmethod
    def fresh(cls, recipe: Any, inputs: Inputs) -> Collection[str]:
        """Names of modules that start from random weights; '' is the whole model."""
        return ()


def _notes_of_validation(recipe: Any, inputs: Inputs) -> list[str]:
    if recipe.training.validation is None:
        return []
    held = _held_out(inputs)
    named = (f"{name} {label!r}" for name in MODALITIES for label in inputs.get(name, {}))
    absent = [one for one in named if one not in held]
    return [f"not validated on {', '.join(absent)}: converted without a split"] if absent else []


def _notes_of_fp8(training: TrainingConfig) -> list[str]:
    if training.fp8 is None or training.fp8.emulated or training.compile == "blocks":
        return []
    return ["training.fp8 without compile: blocks, which torchao advises"]


def _notes_of_adapters(stage: type[TrainStage], recipe: Any, inputs: Inputs) -> list[str]:
    lora: LoRAConfig | None = getattr(recipe, "lora", None)
    if lora is None:
        return []
    stuck = [name or "the model" for name in stage.fresh(recipe, inputs) if name not in lora.whole]
    if not stuck:
        return []
    return [
        f"lora freezes {' and '.join(stuck)}, which start from random weights: name modules to be "
        "trained in full in lora.whole"
    ]


def _held_out(inputs: Inputs) -> list[str]:
    """Datasets that have a validation side, or may have one, as an imported one."""
    return [
        f"{name} {label!r}"
        for name in MODALITIES
        for label, one in inputs.get(name, {}).items()
        if getattr(one.recipe, "split", "unknown") is not None
    ]


def check_source_of_tokens(slot: str, described: Config | None, inputs: Inputs) -> None:
    """A model builds on the upstream one, or is described and given a tokenizer."""
    if inputs.get(slot):
        return
    if described is None:
        raise FoundryError(
            f"no {slot} is connected and the recipe does not describe one",
            f"connect the input {slot!r}, or give the part of `model` it would replace",
        )
    needed = described.text if isinstance(described, EncoderConfig) else described
    if needed is None or (isinstance(needed, HFConfig) and needed.has_weights):
        return
    if not inputs.get("tokenizer"):
        raise FoundryError(
            f"without {slot} the vocabulary is unknown", "connect the input 'tokenizer'"
        )
