"""Vision-language model → Quality: its captions of held-out images, its answers to questions about
images, and where it says that things are in scenes whose ground truth is known."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.evaluation.quality_recipe import QualityResources, check_device
from foundry_core.evaluation.vision.config import CaptionExam, VqaQuestions
from foundry_core.pipeline import stage


class EvaluateVlmRecipe(stage.Recipe):
    captions: CaptionExam = Field(
        CaptionExam(), description="which captions of the connected datasets are asked for, and how"
    )
    questions: dict[str, VqaQuestions] = Field(
        {}, description="name → questions about images: {path: <folder with questions.jsonl>}"
    )
    chat: bool = Field(
        True, description="an imported model is asked as its chat template writes a user's turn"
    )


class EvaluateVlm(stage.Stage):
    kind = "evaluate_vlm"
    output = stage.ArtifactType.QUALITY
    seeded = False
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "model": stage.slot(stage.ArtifactType.VISION_LANGUAGE_MODEL),
        "captions": stage.slot(stage.ArtifactType.CAPTION_SHARDS, many=True, optional=True),
    }
    Recipe = EvaluateVlmRecipe
    Resources = QualityResources

    @classmethod
    def sources(cls, recipe: EvaluateVlmRecipe) -> Mapping[str, str]:
        return {
            f"{name}: {what}": digest
            for name, source in recipe.questions.items()
            for what, digest in source.identity().items()
        }

    @classmethod
    def check(cls, recipe: EvaluateVlmRecipe, inputs: Mapping[str, Any]) -> None:
        captions = inputs.get("captions", {})
        if not captions and not recipe.questions:
            raise FoundryError(
                "evaluate_vlm is asked nothing", "connect `captions`, or give it `questions`"
            )
        twice = sorted(captions.keys() & recipe.questions.keys())
        if twice:
            raise FoundryError(
                f"{twice[0]!r} is a name of questions and of captions", "rename one of them"
            )
        for label, one in captions.items():
            split = getattr(one.recipe, "split", True)  # an imported dataset may have one
            if recipe.captions.split == "validation" and not split:
                raise FoundryError(
                    f"captions {label!r} were converted without a split: nothing is held out",
                    f"give {one.name} a `split`, such as {{fraction: 0.05}}, or set "
                    "captions.split=all",
                )

    @classmethod
    def numerics(cls, resources: QualityResources) -> Mapping[str, str]:
        return {"threads": str(resources.cpus)} if resources.device == "cpu" else {}

    @classmethod
    def check_resources(cls, recipe: EvaluateVlmRecipe, resources: QualityResources) -> None:
        check_device(resources)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.evaluation.vision.exam import examine_vision

        return examine_vision(ctx)


STAGE = EvaluateVlm
