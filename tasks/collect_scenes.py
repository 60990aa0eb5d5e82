"""Random walks in a simulator → Scenes: pictures with captions from ground truth."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from foundry_core.data.contract.statements import DataContract
from foundry_core.files import json_line
from foundry_core.pipeline import stage
from foundry_core.simulation.collection import CollectScenesRecipe, CollectStage, record_slots
from foundry_core.simulation.config import cameras_contract


class CollectScenes(CollectStage):
    kind = "collect_scenes"
    output = stage.ArtifactType.SCENES
    Recipe = CollectScenesRecipe

    @classmethod
    def states(cls, recipe: CollectScenesRecipe, inputs: Mapping[str, Any]) -> DataContract:
        cameras = (
            recipe.expert.data_contract().cameras
            if recipe.expert
            else cameras_contract(recipe.render)
        )
        return DataContract(cameras=cameras)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.simulation import scenes as meta_world

        recipe = ctx.recipe
        record = recipe.expert.record_scenes if recipe.expert else meta_world.record_scenes
        slots = ceil(recipe.frames_per_task / recipe.frames_per_scenario)
        pictures = frames = 0
        with (ctx.out / "scenes.jsonl").open("w", encoding="utf-8") as index:
            for done, total, scenes in record_slots(ctx, record, slots):
                for scene in scenes:
                    folder = ctx.out / "images" / scene.task
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
                    pictures += len(paths)
                ctx.progress(done, total, scenes[0].task, frames=frames)
        return {"scenes": frames, "images": pictures}


STAGE = CollectScenes
