"""Random walks in the simulator → Scenes: pictures with captions from ground truth."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from foundry_core.files import json_line
from foundry_core.identity.sources import package_fingerprint
from foundry_core.pipeline import stage
from foundry_core.simulation.config import DEFAULT_TASKS, RenderConfig, TaskNames


class CollectScenesRecipe(stage.Recipe):
    tasks: TaskNames = DEFAULT_TASKS
    frames_per_task: int = Field(600, ge=1)
    frames_per_scenario: int = Field(4, ge=1, le=20)
    steps_between: int = Field(3, ge=1, le=5, description="control steps from frame to frame")
    expert_share: float = Field(
        0.5, ge=0, le=1, description="scenarios that begin with some of the expert's work"
    )
    randomized_share: float = Field(
        0.5, ge=0, le=1, description="captions that put the instruction in other words"
    )
    render: RenderConfig = RenderConfig()


class CollectScenes(stage.Stage):
    kind = "collect_scenes"
    output = stage.ArtifactType.SCENES
    Recipe = CollectScenesRecipe

    @classmethod
    def sources(cls, recipe: CollectScenesRecipe) -> Mapping[str, str]:
        return {name: package_fingerprint(name) for name in ("metaworld", "mujoco")}

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.parallel import ordered_map
        from foundry_core.simulation.scenes import record_scenes

        jobs = _jobs(ctx.recipe, ctx.seed)
        images = ctx.out / "images"
        frames = 0
        with (ctx.out / "scenes.jsonl").open("w", encoding="utf-8") as index:
            batches = ordered_map(record_scenes, jobs, workers=ctx.resources.cpus)
            for done, scenes in enumerate(batches, start=1):
                for scene in scenes:
                    folder = images / scene.task
                    folder.mkdir(parents=True, exist_ok=True)
                    paths = []
                    for camera, data in scene.images.items():
                        path = folder / f"{scene.slot:05d}_{scene.frame:02d}_{camera}.jpg"
                        path.write_bytes(data)
                        paths.append(path.relative_to(ctx.out).as_posix())
                    entry = {
                        "image": paths,
                        "cameras": list(scene.images),
                        "caption": scene.caption,
                        "instruction": scene.instruction,
                        "task": scene.task,
                    }
                    index.write(json_line(entry))
                    frames += 1
                ctx.progress(done, len(jobs), scenes[0].task, frames=frames)
        return {"scenes": frames, "images": frames * len(ctx.recipe.render.cameras)}


def _jobs(recipe: CollectScenesRecipe, seed: int) -> list[Any]:
    from foundry_core.simulation.scenes import SceneJob

    return [
        SceneJob(
            task=task,
            slot=slot,
            seed=seed,
            render=recipe.render,
            frames=min(recipe.frames_per_scenario, recipe.frames_per_task - first),
            steps_between=recipe.steps_between,
            expert_share=recipe.expert_share,
            randomized_share=recipe.randomized_share,
        )
        for task in recipe.tasks
        for slot, first in enumerate(range(0, recipe.frames_per_task, recipe.frames_per_scenario))
    ]


STAGE = CollectScenes
