"""Every action head on the demo's data, at equal steps: what each is worth and costs.

    python benchmarks/heads.py [--steps 1400] [--vlm-steps 800] [--demos 100] [--episodes 25]
        [--heads flow,bins] [--tasks window-open-v3,drawer-open-v3] [--cpus 2] [--home DIR]
        [--out FILE]

One table: head × success with its exact interval, action error, chunk latency, parameters, CPU
minutes. All read the demo's VLM and see the same batches in the same order, with its captions
beside; those on encoders have no VLM, and no captions. Error: mean absolute, normalised, on windows
of the training set, without augmentation. Latency: CPU time of one chunk, batch 1, median. A
finished stage is found in the store of --home again, so a broken run goes on where it was.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.config.documents import find_pipeline, load_document

SHAPE = {"dim": 128, "n_layers": 3, "n_heads": 4, "ffn_dim": 256}
NOISE = {"num_noise_samples": 4}
TIMES = {"times": {"kind": "beta", "alpha": 1.0, "beta": 1.5}}
EXPERT = SHAPE | NOISE | TIMES | {"kind": "pi0", "n_layers": 4}
HEADS: Mapping[str, Mapping[str, Any]] = {
    "flow (sum)": {"kind": "flow", **SHAPE, **NOISE, **TIMES},
    "flow (AdaLN)": {"kind": "flow", **SHAPE, **NOISE, **TIMES, "time": "adaln"},
    "flow (token)": {"kind": "flow", **SHAPE, **NOISE, **TIMES, "time": "token"},
    "diffusion": {"kind": "diffusion", **SHAPE, **NOISE},
    "regression": {"kind": "regression", **SHAPE},
    "act": {"kind": "act", **SHAPE, "style_layers": 2},
    "bins": {"kind": "bins"},
    "fast": {"kind": "fast"},
    "pi0": EXPERT,
    "pi0 (alternate)": EXPERT | {"attention": "alternate"},
    "pi0 (insulated, fast)": EXPERT | {"insulated": True, "tokens": {"kind": "fast"}},
    "act on encoders": {"kind": "act", **SHAPE, "style_layers": 2},
    "diffusion on encoders": {"kind": "diffusion", **SHAPE, **NOISE, "time": "adaln"},
}
ON_ENCODERS = " on encoders"
COLUMNS = ("head", "success", "95 % interval", "error", "ms per chunk", "parameters", "CPU minutes")
_WINDOWS, _CHUNKS = 256, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--vlm-steps", type=int, default=800)
    parser.add_argument("--demos", type=int, default=100, help="of each task")
    parser.add_argument("--episodes", type=int, default=25, help="of each task")
    parser.add_argument("--heads", default=",".join(HEADS), help="by name or beginning, in order")
    parser.add_argument("--cpus", type=int, default=2, help="for demonstrations and the VLM")
    parser.add_argument("--tasks", default=None, help="default: the demo's")
    parser.add_argument("--home", type=Path, default=Path("heads-benchmark"))
    parser.add_argument("--out", type=Path, default=None, help="a file the table is added to")
    given = parser.parse_args()
    wanted = given.heads.split(",")
    chosen = list(dict.fromkeys(name for one in wanted for name in HEADS if asked(name, one)))
    given.home.mkdir(parents=True, exist_ok=True)
    path = given.home / "heads.yaml"
    path.write_text(json.dumps(pipeline(given, chosen)))
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    print("\n".join(lines), flush=True)
    for name in chosen:
        line = f"| {' | '.join(row(path, given.home, name))} |"
        print(line, flush=True)
        lines.append(line)
    if given.out is not None:
        with given.out.open("a") as file:
            file.write("\n".join(lines) + "\n")


def asked(name: str, wanted: str) -> bool:
    """Whether a head is meant: by its name, else by its beginning."""
    return name == wanted if wanted in HEADS else name.startswith(wanted)


def stage_of(name: str) -> str:
    """A name of a stage."""
    return "vla_" + "".join(c if c.isalnum() else "_" for c in name.lower())


def pipeline(given: argparse.Namespace, chosen: list[str]) -> dict[str, Any]:
    """The demo up to its VLM, and a policy and its exam for each head, as JSON (which is YAML)."""
    demo = load_document(find_pipeline("demo"))["stages"]
    policy, exam = demo["vla"], demo["evaluate"]
    shared = ("demos", "scenes", "tokenizer", "text", "captions", "robot", "stats", "llm", "vlm")
    stages = {name: demo[name] for name in shared}
    stages["demos"]["recipe"]["episodes_per_task"] = given.demos
    stages["scenes"]["recipe"]["frames_per_task"] = 6 * given.demos
    stages["vlm"]["recipe"]["training"]["steps"] = given.vlm_steps
    exam["recipe"]["episodes_per_task"] = given.episodes
    for name in ("demos", "scenes", "vlm"):
        stages[name]["resources"] = {"cpus": given.cpus}
    if given.tasks:
        for one in (stages["demos"], stages["scenes"], exam):
            one["recipe"]["tasks"] = given.tasks.split(",")
    for name in chosen:
        stage = json.loads(json.dumps(policy))
        stage["recipe"]["training"]["steps"] = given.steps
        stage["recipe"]["model"]["head"] = dict(HEADS[name])
        if name.endswith(ON_ENCODERS):
            stage["inputs"] = {"robot": "robot", "stats": "stats", "tokenizer": "tokenizer"}
            del stage["recipe"]["data"]["captions"]
            vlm = stages["vlm"]["recipe"]["model"]
            text = stages["llm"]["recipe"]["model"] | {"n_layers": 2}
            stage["recipe"]["model"]["backbone"] = {
                "kind": "encoder",
                "vision": vlm["vision"],
                "text": text,
            }
        stages[stage_of(name)] = stage
        stages[f"evaluate_{stage_of(name)}"] = exam | {"inputs": {"policy": stage_of(name)}}
    return {"name": "heads", "seed": 0, "stages": stages}


def row(path: Path, home: Path, name: str) -> list[str]:
    """Trains and examines one head."""
    import os

    import flows
    from foundry_core.evaluation.score import Score, read_evaluation

    os.environ["FOUNDRY_HOME"] = str(home.absolute())
    stage = stage_of(name)
    result = flows.run(str(path), {}, only=[f"evaluate_{stage}"], quiet=True)
    if result["status"] != "succeeded":
        return [name, f"{result['status']}: see {home}", *[""] * (len(COLUMNS) - 2)]
    made = {one["name"]: home / "store" / one["kind"] / one["key"] for one in result["stages"]}
    score = sum(read_evaluation(made[f"evaluate_{stage}"]).scores.values(), Score())
    low, high = score.interval
    metrics = json.loads((made[stage] / "artifact.json").read_text())["metrics"]
    timings = json.loads((made[stage] / "records" / "timings.json").read_text())
    error, milliseconds = measured(made[stage], made["robot"], made["stats"])
    return [
        name,
        f"{score.successes} of {score.n}",
        f"{100 * low:.0f}–{100 * high:.0f} %",
        f"{error:.3f}",
        f"{milliseconds:.0f}",
        f"{metrics['parameters'] / 1e6:.2f}M",
        f"{timings['cpu_seconds'] / 60:.1f}",
    ]


def measured(policy_dir: Path, robot: Path, stats: Path) -> tuple[float, float]:
    """(mean absolute normalised error on windows of the training set, ms of CPU per chunk)."""
    import torch

    from foundry_core.data.loading.build import build_loader
    from foundry_core.data.loading.config import DataConfig, RobotData
    from foundry_core.data.text.tokenizer import Tokenizer
    from foundry_core.serving.policy import load_policy

    policy = load_policy(policy_dir, threads=1)
    model, transform = policy.model, policy.transform
    loader = build_loader(
        DataConfig(robot=RobotData(batch_size=32, inputs=transform.inputs)),
        {"robot": {"robot": robot}},
        seed=1,
        tokenizer=Tokenizer.load(policy_dir),
        tokens_per_image=model.backbone.tokens_per_image,
        marks=model.backbone.marks,
        normalizer=transform.normalizer,
        train=False,
    )
    total = count = 0.0
    seconds = []
    for step in range(_WINDOWS // 32):
        batch = loader.batch(step)["robot"]
        names = ("images", "tokens", "token_mask", "proprio")
        inputs = [batch[name] for name in names]
        rows = torch.arange(len(batch["tokens"]))
        said = model.act(*inputs, seeds=rows, steps=rows * 0)
        mask = batch["action_mask"]
        total += float((said - batch["actions"]).abs()[mask].sum())
        count += float(mask.sum())
        if step:
            continue
        for number in range(_CHUNKS):
            one = [batch[name][number : number + 1] for name in names]
            begun = time.process_time()
            model.act(*one, seeds=rows[:1], steps=rows[:1])
            seconds.append(time.process_time() - begun)
    return total / count, 1e3 * statistics.median(seconds)


if __name__ == "__main__":
    main()
