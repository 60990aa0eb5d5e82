"""Meta-World's scripted experts → Demonstrations."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from foundry_core.files import json_line, write_json
from foundry_core.identity.sources import package_fingerprint
from foundry_core.pipeline import stage
from foundry_core.simulation.config import DEFAULT_TASKS, RenderConfig, TaskNames
from foundry_core.simulation.scenarios import MAX_SLOTS

if TYPE_CHECKING:
    from foundry_core.simulation.demonstrations import Demonstration


class CollectDemosRecipe(stage.Recipe):
    tasks: TaskNames = DEFAULT_TASKS
    episodes_per_task: int = Field(100, ge=1, le=MAX_SLOTS)
    render: RenderConfig = RenderConfig()
    random_start_steps: int = Field(
        15, ge=0, description="every other episode starts after 0..this many unrecorded steps"
    )
    tail_steps: int = Field(3, ge=1, description="steps recorded from success on")
    max_steps: int = Field(100, ge=1, le=100, description="control steps an expert may take")


class CollectDemos(stage.Stage):
    kind = "collect_demos"
    output = stage.ArtifactType.DEMONSTRATIONS
    Recipe = CollectDemosRecipe

    @classmethod
    def sources(cls, recipe: CollectDemosRecipe) -> Mapping[str, str]:
        return {name: package_fingerprint(name) for name in ("metaworld", "mujoco")}

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.parallel import ordered_map
        from foundry_core.simulation.catalog import CONTROL_HZ
        from foundry_core.simulation.demonstrations import DemonstrationJob, pack, record

        recipe = ctx.recipe
        jobs = [
            DemonstrationJob(
                task=task,
                slot=slot,
                seed=ctx.seed,
                render=recipe.render,
                wander=recipe.random_start_steps,
                tail_steps=recipe.tail_steps,
                max_steps=recipe.max_steps,
            )
            for task in recipe.tasks
            for slot in range(recipe.episodes_per_task)
        ]
        zero = {"episodes": 0, "attempts": 0, "steps": 0}
        tasks = {task: dict(zero) for task in recipe.tasks}
        with (ctx.records / "demonstrations.jsonl").open("w") as log:
            demonstrations = ordered_map(record, jobs, workers=ctx.resources.cpus)
            for done, demonstration in enumerate(demonstrations, start=1):
                folder = ctx.out / "episodes" / demonstration.task
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{demonstration.episode_id}.tar").write_bytes(pack(demonstration))
                count = tasks[demonstration.task]
                count["episodes"] += 1
                count["attempts"] += demonstration.attempts
                count["steps"] += demonstration.length
                log.write(json_line(_log_row(demonstration)))
                ctx.progress(done, len(jobs), demonstration.task, steps=demonstration.length)
        side = {"height": recipe.render.size, "width": recipe.render.size}
        document = {
            "format": "foundry-demonstrations",
            "version": 1,
            "hz": CONTROL_HZ,
            "cameras": dict.fromkeys(recipe.render.cameras, side),
            "tasks": tasks,
        }
        write_json(ctx.out / "demos.json", document)
        totals = {key: sum(count[key] for count in tasks.values()) for key in zero}
        return {
            "demonstrations": totals["episodes"],
            "failed_experts": totals["attempts"] - totals["episodes"],
            "steps": totals["steps"],
        }


def _log_row(demonstration: "Demonstration") -> dict[str, Any]:
    return {
        "task": demonstration.task,
        "scenario": demonstration.scenario,
        "success": True,
        "steps": demonstration.length,
        "crash": False,
        "seed": demonstration.scenario,
        "attempts": demonstration.attempts,
    }


STAGE = CollectDemos
