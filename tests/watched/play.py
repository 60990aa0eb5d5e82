"""An evaluation that keeps a video of every episode, in scratch while it goes on."""

import shutil
import time

import numpy as np

from foundry_core.evaluation.rollout.video import encode_video
from foundry_core.evaluation.score import Evaluation, write_evaluation
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage, slot


class PlayRecipe(Recipe):
    tasks: tuple[str, ...] = ("push", "stack")
    episodes: int = 3
    failures: int = 1
    seconds: float = 0.0


class Play(Stage):
    kind = "play"
    output = ArtifactType.EVALUATION
    inputs = {"model": slot(ArtifactType.LANGUAGE_MODEL)}
    Recipe = PlayRecipe

    @staticmethod
    def run(ctx):
        recipe, kept = ctx.recipe, ctx.scratch / "pictures" / "records" / "videos"
        outcomes, done, whole = {}, 0, recipe.episodes * len(recipe.tasks)
        for task in recipe.tasks:
            (kept / task).mkdir(parents=True, exist_ok=True)
            outcomes[task] = {}
            for scenario in range(recipe.episodes):
                time.sleep(recipe.seconds / whole)
                success = scenario >= recipe.failures
                outcomes[task][scenario] = success
                name = f"{scenario:06d}_{'success' if success else 'failure'}.mp4"
                (kept / task / name).write_bytes(encode_video(frames(scenario), 8.0))
                done += 1
                ctx.progress(done, whole, task, success_rate=float(success))
        shutil.copytree(ctx.scratch / "pictures", ctx.out, dirs_exist_ok=True)
        return write_evaluation(
            ctx.out, ctx.records, Evaluation(budget=recipe.episodes, outcomes=outcomes)
        )


def frames(scenario):
    """A square that moves across."""
    found = []
    for step in range(12):
        picture = np.full((96, 128, 3), 60, np.uint8)
        picture[30:60, 8 * step : 8 * step + 24] = (230, 90 + 40 * scenario, 40)
        found.append(picture)
    return found


STAGE = Play
