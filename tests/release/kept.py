"""A store with a policy, what it was made from, and evaluations of it and beside it."""

import contextlib
from pathlib import Path
from typing import Any

from foundry_core.blobs import FolderBlobs
from foundry_core.evaluation.facts import EvaluationFacts
from foundry_core.evaluation.score import Evaluation, write_evaluation
from foundry_core.files import sha256_hex
from foundry_core.store.manifest import Artifact, ArtifactInput, File
from foundry_core.store.run_records import write_run

GIT = {"commit": "c0ffee" + "0" * 34, "dirty": True}
PROVENANCE = {
    "git": GIT,
    "packages": {"torch": "2.13.0"},
    "hardware": {"gpus": [{"name": "H100"}]},
    "host": "secret-host",
    "command": ["/home/somebody/foundry"],
}


class Kept:
    """As a Store: `read`, `reading`, `file_path`, `documents`."""

    def __init__(self, root: Path) -> None:
        self.root, self.documents = root, FolderBlobs(root)
        self.known: dict[tuple[str, str], Artifact] = {}

    def read(self, kind: str, key: str) -> Artifact | None:
        return self.known.get((kind, key))

    def reading(self, artifact: Artifact):
        return contextlib.nullcontext(self.root / artifact.key)

    def file_path(self, artifact: Artifact, name: str) -> Path:
        return self.root / artifact.key / name

    def folder(self, kind: str, name: str) -> Path:
        """Of the artifact that `add` makes."""
        return self.root / sha256_hex(f"{kind} {name}")

    def add(
        self, kind: str, *inputs: tuple[str, Artifact], name: str = "", **more: Any
    ) -> Artifact:
        folder = self.folder(kind, name)
        key = folder.name
        files = tuple(
            File(path=str(p.relative_to(folder)), size=p.stat().st_size, sha256=sha256_hex(b""))
            for p in folder.rglob("*")
            if p.is_file()
        )
        given = {"sources": {}, "recipe": {}, "seed": 7, **more}
        artifact = Artifact(
            kind=kind,
            key=key,
            content=sha256_hex(f"content of {key}"),
            input_content_key=key,
            code="version:1",
            code_fingerprint="",
            inputs=tuple(
                ArtifactInput(
                    slot=slot,
                    label="",
                    stage=one.kind,
                    kind=one.kind,
                    key=one.key,
                    content=one.content,
                )
                for slot, one in inputs
            ),
            files=files,
            metrics={},
            attempt="a1",
            run_id="r1",
            created="2026-11-27T08:20:26.168822Z",
            seconds=12.0,
            provenance=PROVENANCE,
            **given,
        )
        self.known[kind, key] = artifact
        return artifact

    def evaluate(self, kind: str, name: str, solved: int, of: int, *inputs: Any, **facts: Any):
        folder = self.folder(kind, name)
        (folder / "records").mkdir(parents=True)
        outcomes = {"push": {n: n < solved for n in range(of)}}
        found = EvaluationFacts(
            benchmark="metaworld",
            first_scenario=0,
            criterion="success at any time within 100 steps",
            **facts,
        )
        write_evaluation(
            folder, folder / "records", Evaluation(budget=of, outcomes=outcomes), found
        )
        return self.add(kind, *inputs, name=name)

    def run(self, run_id: str, **stages: Artifact) -> None:
        record = {name: {"kind": one.kind, "key": one.key} for name, one in stages.items()}
        write_run(self.documents, {"run_id": run_id, "pipeline": "p", "stages": record})


def kept(root: Path) -> tuple[Kept, Artifact]:
    """(store, the policy): demonstrations of unknown licence, a control, a blind copy."""
    store = Kept(root)
    demos = store.add("convert_robot", sources={"lerobot": "ab" * 32, "package numpy": "cd" * 32})
    gone = store.add("train_vlm")
    policy = store.add(
        "train_vla", ("robot", demos), ("vlm", gone), recipe={"training": {"steps": 400}}
    )
    del store.known["train_vlm", gone.key]
    evals = {
        "exam": store.evaluate("evaluate", "exam", 160, 200, ("policy", policy), seed=3),
        "grey": store.evaluate("evaluate", "grey", 0, 200, ("policy", policy), blank_images=True),
        "still": store.evaluate("evaluate_control", "still", 0, 200, control="still"),
    }
    store.run("20260101T000000-p-000000", policy=policy, **evals)
    store.run("20260102T000000-p-000000", other=store.evaluate("evaluate", "other", 1, 200))
    return store, policy
