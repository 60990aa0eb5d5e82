"""The three training stages: from configs and upstream folders to a trained model's folder.

They share everything but the model and its objectives: build a loader, build a model on the
upstream one, run the Trainer, save weights, configs and tokenizer side by side.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import DataConfig, LoaderResources
from foundry_core.data.loading.loader import Loader
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import IMAGE, OBS
from foundry_core.data.robot.transforms import RobotTransform
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.models.build import build_model
from foundry_core.models.config.language import TransformerConfig
from foundry_core.models.config.vla import VLAConfig
from foundry_core.models.config.vlm import VLMConfig
from foundry_core.models.io import load_model, save_model
from foundry_core.models.vla import VLA
from foundry_core.models.vlm import VLM, check_vocabulary
from foundry_core.pipeline.stage import Progress
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.distributed import World, full, local_batch_size
from foundry_core.training.loop import Objective, Trainer
from foundry_core.training.objectives import ActionLoss, CaptionLoss, TextLoss

POLICY = "policy.json"
NORMALIZER = "normalizer.json"
Sources = Mapping[str, Mapping[str, Path]]


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What every training stage needs. sources: modality → label → shard folder."""

    data: DataConfig
    training: TrainingConfig
    resources: TrainResources
    sources: Sources
    seed: int
    out: Path
    scratch: Path
    progress: Progress
    lr_scale: Mapping[str, float]
    frozen: tuple[str, ...]
    world: World


def train_language_model(
    job: TrainJob, model: TransformerConfig, tokenizer_path: Path
) -> dict[str, Any]:
    """A decoder from scratch. Its vocabulary is the tokenizer's."""
    tokenizer = Tokenizer.load(tokenizer_path)
    for label, folder in job.sources["text"].items():
        _check_text(label, folder, tokenizer)
    config = model.model_copy(update={"vocab_size": tokenizer.vocab_size})
    module = build_model(config, seed=job.seed)
    loader = build_loader(
        job.data, job.sources, seed=job.seed, tokenizer=tokenizer, resources=_loading(job)
    )
    objectives = {"text": TextLoss(z_loss=job.training.z_loss)}
    tokens = job.data.text.batch_size * _context(job.sources["text"])
    steps = job.training.total_steps(
        samples_per_step=job.data.samples_per_step, tokens_per_step=tokens
    )
    metrics = _train(job, module, objectives, loader, steps)
    _save(job, module, tokenizer)
    return metrics | {"tokens": steps * tokens}


def train_vision_language_model(
    job: TrainJob, model: VLMConfig, llm: Path | None, tokenizer_path: Path | None
) -> dict[str, Any]:
    """A VLM on an upstream language model, or from scratch with `model.language` given."""
    tokenizer = _upstream_tokenizer(llm, tokenizer_path)
    used = tokenizer.vocab_size
    image = tokenizer.add_special(IMAGE)
    config = model.model_copy(update={"image_token_id": image})
    if llm is not None:
        language, _ = load_model(llm)
        check_vocabulary(
            tokenizer=(Tokenizer.load(llm).digest, used),
            model=(None, language.config.vocab_size or used),
        )
        with _seeded(job.seed):
            module: nn.Module = VLM.from_language_model(
                config, language, vocab_size=tokenizer.vocab_size
            )
    else:
        language_config = _scratch_language(model, tokenizer.vocab_size)
        module = build_model(config.model_copy(update={"language": language_config}), job.seed)
    loader = build_loader(
        job.data,
        job.sources,
        seed=job.seed,
        tokenizer=tokenizer,
        tokens_per_image=config.tokens_per_image,
        resources=_loading(job),
    )
    objectives = _text_objectives(job, image, config.tokens_per_image)
    steps = job.training.total_steps(samples_per_step=job.data.samples_per_step)
    metrics = _train(job, module, objectives, loader, steps)
    _save(job, module, tokenizer)
    return metrics


def train_policy(
    job: TrainJob,
    model: VLAConfig,
    vlm: Path | None,
    tokenizer_path: Path | None,
    statistics: Path,
    execute_steps: int,
) -> dict[str, Any]:
    """A policy on an upstream VLM, or from scratch with `model.backbone` given. What serving
    needs (normaliser, inputs, rate) is saved beside the weights."""
    tokenizer = _upstream_tokenizer(vlm, tokenizer_path)
    obs = tokenizer.add_special(OBS)
    backbone = load_model(vlm)[0] if vlm is not None else None
    backbone_config = backbone.config if backbone is not None else _scratch_vlm(model, tokenizer)
    image, per_image = backbone_config.image_token_id, backbone_config.tokens_per_image
    inputs = job.data.robot.inputs
    normalizer = Normalizer.from_statistics(
        DatasetStatistics.load(statistics / "stats.json"),
        inputs.fields,
        job.data.robot.normalization,
    )
    transform = RobotTransform(inputs, normalizer, tokenizer, per_image)
    config = model.model_copy(
        update={
            "horizon": inputs.horizon,
            "action_dim": transform.action_dim,
            "proprio_dim": transform.proprio_dim,
            "proprio_steps": len(inputs.proprio_steps),
            "obs_token_id": obs,
        }
    )
    with _seeded(job.seed):
        if backbone is not None:
            module: nn.Module = VLA.from_vlm(config, backbone, vocab_size=tokenizer.vocab_size)
        else:
            module = build_model(config.model_copy(update={"backbone": backbone_config}))
            module.resize_vocabulary(tokenizer.vocab_size)
    loader = build_loader(
        job.data,
        job.sources,
        seed=job.seed,
        tokenizer=tokenizer,
        tokens_per_image=per_image,
        normalizer=normalizer,
        resources=_loading(job),
    )
    objectives = _text_objectives(job, image, per_image) | {
        "robot": ActionLoss(image_token_id=image, obs_token_id=obs, tokens_per_image=per_image)
    }
    steps = job.training.total_steps(samples_per_step=job.data.samples_per_step)
    metrics = _train(job, module, objectives, loader, steps)
    _save(job, module, tokenizer)
    if not job.world.main:
        return metrics
    normalizer.save(job.out / NORMALIZER)
    policy = {
        "format": "foundry-policy",
        "version": 1,
        "hz": _rate(job.sources["robot"]),
        "execute_steps": execute_steps,
        "inputs": inputs.model_dump(mode="json"),
    }
    (job.out / POLICY).write_text(json.dumps(policy, sort_keys=True, indent=2) + "\n")
    return metrics


def _train(
    job: TrainJob,
    module: nn.Module,
    objectives: Mapping[str, Objective],
    loader: Loader,
    steps: int,
) -> dict[str, Any]:
    for name, part in job.data.modalities.items():
        local_batch_size(part.batch_size, job.world, name)
    trainer = Trainer(
        model=module,
        objectives={name: objectives[name] for name in job.data.modalities},
        batches=partial(loader.batches, rank=job.world.rank, world=job.world.size),
        config=job.training,
        total_steps=steps,
        seed=job.seed,
        resources=job.resources,
        scratch=job.scratch,
        records=job.out / "records",
        progress=job.progress,
        weights=job.data.loss_weights,
        lr_scale=job.lr_scale,
        frozen=job.frozen,
        world=job.world,
    )
    result = trainer.train()
    if job.world.main:
        report = json.dumps(loader.report(), indent=1) + "\n"
        (job.out / "records" / "data.json").write_text(report)
    parameters = sum(p.numel() for p in module.parameters())
    return {**result.metrics(), "parameters": parameters}


def _save(job: TrainJob, module: nn.Module, tokenizer: Tokenizer) -> None:
    """Rank 0 writes; sharded weights are gathered by all ranks together."""
    state = {name: full(tensor) for name, tensor in module.state_dict().items()}
    if job.world.main:
        save_model(job.out, module, state=state)
        tokenizer.save(job.out)


def _text_objectives(job: TrainJob, image: int, per_image: int) -> dict[str, Objective]:
    z_loss = job.training.z_loss
    return {
        "text": TextLoss(z_loss=z_loss),
        "captions": CaptionLoss(image_token_id=image, tokens_per_image=per_image, z_loss=z_loss),
    }


def _loading(job: TrainJob) -> LoaderResources:
    return LoaderResources(workers=job.resources.loader_workers, pin_memory=job.resources.gpus > 0)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """New weights are a function of the seed; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _upstream_tokenizer(model: Path | None, tokenizer: Path | None) -> Tokenizer:
    """The upstream model's, else the connected one; two must agree."""
    found = [Tokenizer.load(path) for path in (model, tokenizer) if path is not None]
    if not found:
        raise FoundryError(
            "a model from scratch needs a tokenizer", "connect the input 'tokenizer'"
        )
    if len(found) == 2:
        check_vocabulary(
            tokenizer=(found[1].digest, found[1].vocab_size),
            model=(found[0].digest, found[0].vocab_size),
        )
    return found[0]


def _scratch_language(model: VLMConfig, vocab_size: int) -> TransformerConfig:
    if model.language is None:
        raise FoundryError(
            "model.language is null and no language model is connected",
            "connect the input 'llm', or describe the language model in the recipe",
        )
    return model.language.model_copy(update={"vocab_size": vocab_size})


def _scratch_vlm(model: VLAConfig, tokenizer: Tokenizer) -> VLMConfig:
    if not isinstance(model.backbone, VLMConfig):
        raise FoundryError(
            "model.backbone is null and no VLM is connected",
            "connect the input 'vlm', or describe a vlm backbone in the recipe",
        )
    image = tokenizer.add_special(IMAGE)
    language = _scratch_language(model.backbone, tokenizer.vocab_size)
    return model.backbone.model_copy(update={"language": language, "image_token_id": image})


def _check_text(label: str, folder: Path, tokenizer: Tokenizer) -> None:
    digest = json.loads((folder / "dataset.json").read_text()).get("tokenizer")
    if digest and digest != tokenizer.digest:
        raise FoundryError(
            f"text dataset {label!r} was made with tokenizer {digest[:12]}, the model uses "
            f"{tokenizer.digest[:12]}",
            "convert the text with the connected tokenizer",
        )


def _context(text: Mapping[str, Path]) -> int:
    folder = next(iter(text.values()))
    return int(json.loads((folder / "dataset.json").read_text())["context"])


def _rate(robot: Mapping[str, Path]) -> float:
    rates = {json.loads((f / "dataset.json").read_text())["hz"] for f in robot.values()}
    if len(rates) > 1:
        raise FoundryError(
            f"robot datasets have different rates {sorted(rates)} Hz",
            "a policy acts at one rate: train on datasets of one",
        )
    return float(rates.pop())
