"""Plays scenarios with a model of `train`: the better its weight, the more succeed."""

import random

from foundry_core.evaluation.score import Evaluation, write_evaluation
from foundry_core.files import write_json_lines
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage, slot


class ExamRecipe(Recipe):
    tasks: tuple[str, ...] = ("add", "sort")
    episodes_per_task: int = 40
    first_scenario: int = 0
    pass_mark: int = 0
    fail: bool = False
    fail_at_seed: int | None = None


class Exam(Stage):
    kind = "exam"
    output = ArtifactType.EVALUATION
    inputs = {"model": slot(ArtifactType.LANGUAGE_MODEL)}
    Recipe = ExamRecipe

    @staticmethod
    def run(ctx):
        if ctx.recipe.fail or ctx.recipe.fail_at_seed == ctx.seed:
            raise ValueError("told to fail")
        skill = min(1.0, float((ctx.input("model").path / "weight.txt").read_text()) / 10)
        skill -= ctx.recipe.pass_mark / 10
        outcomes, episodes = {}, []
        for task in ctx.recipe.tasks:
            outcomes[task] = {}
            for index in range(ctx.recipe.episodes_per_task):
                scenario = ctx.recipe.first_scenario + index
                luck = random.Random(f"{task}/{scenario}/{ctx.seed}").random()
                success = luck < skill
                outcomes[task][scenario] = success
                row = {"task": task, "scenario": scenario, "success": success, "steps": 1}
                episodes.append(row | {"crash": False, "seed": ctx.seed})
        write_json_lines(ctx.records / "episodes.jsonl", episodes)
        evaluation = Evaluation(budget=ctx.recipe.episodes_per_task, outcomes=outcomes)
        return write_evaluation(ctx.out, ctx.records, evaluation)


STAGE = Exam
