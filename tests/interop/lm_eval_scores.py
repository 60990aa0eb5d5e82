"""Run by a Python that has lm-evaluation-harness: MODEL DATA CONTEXT OUT.

DATA holds <task>.jsonl in the fields that the harness's own tasks read, and text.jsonl. Writes what
the harness says of each: log-likelihoods by item, and its metrics.
"""

import json
import sys
from pathlib import Path

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

TASKS = {
    "hellaswag": "hellaswag",
    "arc": "arc_easy",
    "boolq": "boolq",
    "winogrande": "winogrande",
    "piqa": "piqa",
}
TEXT = {
    "task": "here_text",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [
        {"metric": name} for name in ("bits_per_byte", "byte_perplexity", "word_perplexity")
    ],
}
SPLITS = {"training_split": None, "validation_split": "validation", "test_split": None}


def write_task(data: Path, name: str, config: dict) -> None:
    source = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(data / f"{name}.jsonl")}},
    }
    (data / f"{name}.yaml").write_text(json.dumps({**config, **source, **SPLITS}))


def main(model: Path, data: Path, context: int, out: Path) -> None:
    # The harness's own tasks as they are, but for where their questions lie. JSON is YAML.
    index = TaskManager().task_index
    for ours, theirs in TASKS.items():
        included = {"include": str(index[theirs].yaml_path), "task": f"here_{ours}"}
        write_task(data, ours, included)
    write_task(data, "text", TEXT)
    manager = TaskManager(include_path=str(data))
    names = [f"here_{name}" for name in (*TASKS, "text")]
    eos = AutoTokenizer.from_pretrained(model).eos_token_id
    lm = HFLM(
        pretrained=str(model),
        device="cpu",
        dtype="float32",
        batch_size=4,
        max_length=context,
        prefix_token_id=eos,
    )
    found = simple_evaluate(
        lm, tasks=names, task_manager=manager, log_samples=True, bootstrap_iters=0
    )
    result = {}
    for theirs in names:
        metrics = {k.partition(",")[0]: v for k, v in found["results"][theirs].items()}
        samples = sorted(found["samples"][theirs], key=lambda one: one["doc_id"])
        likelihoods = [
            [float(x[0] if isinstance(x, (list, tuple)) else x) for x in sample["filtered_resps"]]
            for sample in samples
        ]
        result[theirs.removeprefix("here_")] = {"metrics": metrics, "likelihoods": likelihoods}
    out.write_text(json.dumps(result, default=str))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
