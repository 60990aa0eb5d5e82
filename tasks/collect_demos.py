"""Scripted experts, Meta-World's or another simulator's → Demonstrations."""

from collections.abc import Mapping
from typing import Any

from foundry_core.data.contract.statements import DataContract
from foundry_core.files import json_line, write_json
from foundry_core.pipeline import stage
from foundry_core.simulation.collection import CollectDemosRecipe, CollectStage, record_slots
from foundry_core.simulation.config import data_contract


class CollectDemos(CollectStage):
    kind = "collect_demos"
    output = stage.ArtifactType.DEMONSTRATIONS
    Recipe = CollectDemosRecipe

    @classmethod
    def states(cls, recipe: CollectDemosRecipe, inputs: Mapping[str, Any]) -> DataContract:
        return _contract(recipe)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.simulation import demonstrations

        recipe = ctx.recipe
        record = recipe.expert.record if recipe.expert else demonstrations.record
        counted = ("episodes", "attempts", "steps")
        tasks = {task: dict.fromkeys(counted, 0) for task in recipe.tasks}
        with (ctx.records / "demonstrations.jsonl").open("w") as log:
            for done, total, demo in record_slots(ctx, record, recipe.episodes_per_task):
                folder = ctx.out / "episodes" / demo.task
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{demo.episode_id}.tar").write_bytes(demonstrations.pack(demo))
                count = tasks[demo.task]
                count["episodes"] += 1
                count["attempts"] += demo.attempts
                count["steps"] += demo.length
                row = {
                    "task": demo.task,
                    "scenario": demo.scenario,
                    "success": True,
                    "steps": demo.length,
                    "crash": False,
                    "seed": demo.scenario,
                    "attempts": demo.attempts,
                }
                log.write(json_line(row))
                ctx.progress(done, total, demo.task, steps=demo.length)
        document = {
            "format": "foundry-demonstrations",
            "version": 1,
            "contract": _contract(recipe).model_dump(mode="json"),
            "tasks": tasks,
        }
        write_json(ctx.out / "demos.json", document)
        episodes, attempts, steps = (sum(t[name] for t in tasks.values()) for name in counted)
        return {"demonstrations": episodes, "failed_experts": attempts - episodes, "steps": steps}


def _contract(recipe: CollectDemosRecipe) -> DataContract:
    return recipe.expert.data_contract() if recipe.expert else data_contract(recipe.render)


STAGE = CollectDemos
