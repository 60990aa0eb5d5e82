"""The pipelines at full size, at a width and on data that a test can afford: raw data as their
publishers write them, and the settings that make every training one step of a few thousand
parameters. Kinds, wiring, precision, sharding and recomputation stay as they ship."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from foundry_core.config.documents import find_pipeline, load_document
from foundry_core.data.images import encode_jpeg
from tests.synthetic import picture, rotations

PIPELINES = (
    "foundry-vla-11m",
    "foundry-vla-100m",
    "foundry-vla-410m",
    "foundry-vla-1.7b",
    "foundry-qwen3vla-2.1b",
)
RECIPES = (
    "act",
    "diffusion-policy",
    "octo-like",
    "openvla-lora",
    "pi0-like",
    "smolvla-like",
)
"""What the field trains: the first three without a pretrained language model."""
CAMERAS = ("scene_right_0", "scene_left_0", "wrist_left_plus", "wrist_right_minus")
_STEPS = 20
_LANGUAGE = {"dim": 32, "n_layers": 4, "n_heads": 2, "ffn_dim": 48, "vocab_size": 320}
_TOWER = {"image_size": 28, "dim": 16, "n_layers": 1, "n_heads": 2}
_HEAD = {"dim": 16, "n_layers": 2, "n_heads": 2, "ffn_dim": 32}
_TRAINING = {"steps": 1, "samples": None, "tokens": None, "compile": "none"}


def write_raw(root: Path) -> Path:
    """DCLM lines, DataComp tars and LBM episodes under the names that the pipelines look for. The
    simulated and the real ones are alike."""
    for name in ("dclm", "dclm-sample"):
        (root / name).mkdir(parents=True)
        (root / name / "part.jsonl").write_text(_lines(40))
    (root / "datacomp-dr").mkdir()
    _write_tar(root / "datacomp-dr" / "00000.tar", 8)
    for place in ("lbm", "lbm-sim", "lbm-real"):
        for number in range(2):
            folder = root / place / "tasks" / "PutMugOnSaucer" / "sim" / f"episode_{number}"
            _write_episode(folder / "processed", number)
    return root


def _lines(count: int) -> str:
    words = [f"a robot puts the mug number {n} on a saucer and waits" for n in range(count)]
    return "".join(f"{json.dumps({'text': text, 'url': 'x'})}\n" for text in words)


def _write_tar(path: Path, count: int) -> None:
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            files = {
                "jpg": encode_jpeg(picture(number, 48), 90),
                "txt": f"picture {number}".encode(),
                "json": json.dumps({"key": f"{number:09d}"}).encode(),
            }
            for ending, data in files.items():
                member = tarfile.TarInfo(f"{number:09d}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _write_episode(folder: Path, number: int) -> None:
    """As LBM's "diffusion spartan": both arms, four cameras."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(number)
    observed: dict[str, Any] = {"language_instruction": np.full(_STEPS, "put the mug down")}
    actions = np.zeros((_STEPS, 20))
    for side, at in (("right", 0), ("left", 9)):
        pose = f"robot__actual__poses__{side}::panda"
        observed[f"{pose}__xyz"] = rng.normal(size=(_STEPS, 3))
        observed[f"{pose}__rot_6d"] = rotations(rng, _STEPS)
        gripper = f"robot__actual__grippers__{side}::panda_hand"
        observed[gripper] = rng.choice([0.0, 0.1], size=(_STEPS, 1))
        actions[:, at : at + 3] = rng.normal(size=(_STEPS, 3))
        actions[:, at + 3 : at + 9] = rotations(rng, _STEPS)
    actions[:, 18:] = rng.choice([0.0, 0.1], size=(_STEPS, 2))
    for index, camera in enumerate(CAMERAS):
        shots = [picture(number * 1000 + index * 100 + step, 40) for step in range(_STEPS)]
        observed[f"id_{camera}"] = np.stack(shots)
    names = {f"id_{camera}": camera for camera in CAMERAS}
    eye, around = np.eye(3), np.tile(np.eye(4), (_STEPS, 1, 1))
    np.savez(folder / "observations.npz", **observed)
    np.savez(folder / "actions.npz", actions=actions)
    np.savez(folder / "intrinsics.npz", **dict.fromkeys(names, eye))
    np.savez(folder / "extrinsics.npz", **dict.fromkeys(names, around))
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"camera_id_to_semantic_name": names}))


def reduced(name: str, raw: Path, checkpoint: Path | None = None) -> dict[str, Any]:
    """Overrides of a pipeline. checkpoint: of the backbone, where it imports one."""
    stages = load_document(find_pipeline(name))["stages"]
    # Another seed each: reduced, two of them are the same trainings.
    found: dict[str, Any] = {"seed": [*PIPELINES, *RECIPES].index(name)}
    for stage, changes in _CHANGES.items():
        if stage in stages:
            found |= {f"{stage}.{path}": value for path, value in _leaves(changes)}
    for stage, place in (("text", "dclm"), ("captions", "datacomp-dr"), ("robot", "lbm")):
        if stage in stages:
            found[f"{stage}.source.path"] = str(raw / place)
    if "tokenizer" in stages:
        found["tokenizer.sources.0.path"] = str(raw / "dclm-sample")
    if stages.get("vlm", {}).get("kind") == "import_vlm":
        found = {k: v for k, v in found.items() if not k.startswith("vlm.")}
        found |= {"vlm.source": str(checkpoint), "vlm.image_size": 32}
    if stages.get("llm", {}).get("resources", {}).get("micro_batch"):
        found["llm.resources.micro_batch"] = 1
    head = stages["vla"]["recipe"]["model"].get("head", {})
    if name in RECIPES:
        found = {k: v for k, v in found.items() if not k.startswith("vla.model.head.")}
        found |= {
            f"vla.model.head.{k}": v for k, v in _OTHER_HEADS.get(head["kind"], _HEAD).items()
        }
        changes = _BACKBONES.get(name, {})
        found |= {f"vla.model.backbone.{path}": value for path, value in _leaves(changes)}
    return found


_OTHER_HEADS: dict[str, dict[str, Any]] = {
    "act": _HEAD | {"style_layers": 1, "latent": 4},
    "bins": {"bins": 16},
    # As many heads as the tiny checkpoints have.
    "pi0": _HEAD | {"n_heads": 4, "dim": 16},
}
_CLIP = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
_BACKBONES: dict[str, dict[str, Any]] = {
    "act": {"vision": {"image_size": 32, "dim": 8, "stages": [1, 1], "groups": 4}},
    "octo-like": {
        "language": {"dim": 32, "n_layers": 2, "n_heads": 2, "ffn_dim": 48},
        "vision": {"image_size": 32, "stem_dims": [8, 8, 8], "dim": 16, "n_heads": 2},
    },
}


_CHANGES: dict[str, Any] = {
    "tokenizer": {"vocab_size": 270},
    "text": {"context": 16, "resources": {"cpus": 1}},
    "captions": {"image": {"size": [28, 28]}, "resources": {"cpus": 1}},
    "robot": {"image": {"size": [32, 32]}, "resources": {"cpus": 1}},
    "llm": {
        "model": _LANGUAGE,
        "data": {"text": {"batch_size": 2}},
        "training": _TRAINING,
        "resources": {"gpus": 0, "cpus": 1, "loader_workers": 0},
    },
    "vlm": {
        "model": {"vision": _TOWER},
        "data": {"captions": {"batch_size": 2, "max_tokens": 12}, "pad_multiple": 8},
        "training": _TRAINING,
        "resources": {"gpus": 0, "cpus": 1, "loader_workers": 0},
    },
    "vla": {
        "model": {"head": _HEAD},
        "data": {
            "robot": {
                "batch_size": 2,
                "inputs": {"image": {"size": [28, 28]}, "max_instruction_tokens": 6},
            },
            "pad_multiple": 8,
        },
        "training": _TRAINING,
        "resources": {"gpus": 0, "cpus": 1, "loader_workers": 0},
    },
}


def _leaves(value: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, part in value.items():
        inner = f"{path}.{name}" if path else name
        found += _leaves(part, inner) if isinstance(part, dict) else [(inner, part)]
    return found
