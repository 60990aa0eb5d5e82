"""A trained policy as a server or a rollout drives it: measurements in, absolute targets out.

Only what was saved with the checkpoint is used: its normaliser, its tokenizer, its inputs. The
transforms are the objects training used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, PolicyContract
from foundry_core.data.images import rotate, transform
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.transforms import RobotTransform, collate_robot
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.files import sha256_of
from foundry_core.models.config import reads_words
from foundry_core.models.inference import Acceleration, Actor
from foundry_core.models.io import load_as
from foundry_core.models.placeholders import drop_placeholders
from foundry_core.models.policy_settings import NORMALIZER, PolicySettings
from foundry_core.models.vla import VLA

_GREY = 128


class Policy:
    """Batched inference for many clients. A client's noise is a function of its reset seed and of
    how often it has planned since, so that it acts alike in any company."""

    def __init__(
        self,
        model: VLA,
        transform: RobotTransform,
        contract: PolicyContract,
        *,
        pad_id: int,
        blank_images: bool = False,
        how: Acceleration = Acceleration(),
    ) -> None:
        self.model = model
        self._how, self._act = how, Actor(model, how)
        self.transform = transform
        self.contract = contract
        self.hz = contract.hz
        self.execute_steps = contract.execute_steps
        self.reads_words = reads_words(model.backbone.config)
        # A blind control's pictures are neither drawn nor read.
        self._sees = model.config.use_images
        self.cameras = transform.inputs.cameras if self._sees else ()
        self.history = -min(*transform.inputs.image_steps, *transform.inputs.proprio_steps, 0)
        self._pad_id = pad_id
        self._blank = blank_images
        self._clients: dict[str, list[int]] = {}

    def reset(self, client: str, seed: int) -> None:
        """Starts an episode of a client."""
        self._clients[client] = [seed, 0]

    def forget(self, client: str) -> None:
        """Drops a client that is gone."""
        self._clients.pop(client, None)

    def infer(
        self,
        requests: Sequence[tuple[str, Mapping[str, Any]]],
        absent: frozenset[str] = frozenset(),
    ) -> list[dict[str, np.ndarray]]:
        """(client, observation) → {action field: float64 [K, D]} absolute, from the present on, one
        forward pass. absent: stored fields that the robot lacks, masked as in training."""
        for client, _ in requests:
            if client not in self._clients:
                raise FoundryError(f"client {client!r} was never reset", "call reset first")
        samples = [self._sample(observation, absent) for _, observation in requests]
        clients = [self._clients[client] for client, _ in requests]
        spare = self._how.rows(len(requests)) - len(requests)
        samples, clients = samples + samples[-1:] * spare, clients + clients[-1:] * spare
        collated = collate_robot(samples, self._pad_id, self._how.tokens_multiple)
        batch = {name: torch.from_numpy(rows) for name, rows in collated.items()}
        device = next(self.model.parameters()).device
        batch = {name: tensor.to(device) for name, tensor in self._words(batch).items()}
        seeds, plans = torch.tensor(clients, dtype=torch.int64).T.to(device)
        actions = self._act(
            batch.get("images"),
            batch["tokens"],
            batch.get("token_mask"),
            batch["proprio"],
            seeds=seeds,
            steps=plans,
            action_mask=self._action_mask(len(samples), absent, device),
        )[: len(requests)]
        for client, _ in requests:
            self._clients[client][1] += 1
        return [
            self._ahead(self.transform.targets(row, observation["lowdim"], absent))
            for row, (_, observation) in zip(actions.float().cpu().numpy(), requests, strict=True)
        ]

    def _words(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the model reads: of a blind control without the places of images, as in training."""
        backbone = self.model.backbone
        if self._sees or not backbone.tokens_per_image:
            return batch
        words, mask = drop_placeholders(
            batch["tokens"], batch["token_mask"], backbone.image_token_id
        )
        rest = {name: rows for name, rows in batch.items() if name != "token_mask"}
        return {**rest, "tokens": words} | ({} if mask is None else {"token_mask": mask})

    def _ahead(self, targets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Without the steps before the present, which chunks of some recipes begin with."""
        past = self.transform.inputs.action_past
        return {name: values[past:] for name, values in targets.items()}

    def _action_mask(
        self, batch: int, absent: frozenset[str], device: torch.device
    ) -> torch.Tensor | None:
        """[B,K,A]; None where the robot has everything."""
        if not absent:
            return None
        present = torch.from_numpy(self.transform.present_actions(absent))
        return present.to(device).expand(batch, self.transform.inputs.horizon, -1)

    def _sample(
        self, observation: Mapping[str, Any], absent: frozenset[str]
    ) -> dict[str, np.ndarray]:
        inputs = self.transform.inputs
        past = [*observation.get("history", ()), observation]
        images = [
            self._picture(_at(past, step)["images"], camera)
            for camera in self.cameras
            for step in inputs.image_steps
        ]
        measured = observation["lowdim"]
        history = {
            name: np.stack([_at(past, step)["lowdim"][name] for step in inputs.proprio_steps])
            for name in self.transform.measured_fields
            if name not in absent
        }
        tokens, _ = self.transform.tokens(observation["instruction"])
        seen = {"images": np.ascontiguousarray(self.transform.images(images))} if images else {}
        proprio = self.transform.proprio(history, measured)
        return {**seen, "tokens": tokens, "proprio": proprio}

    def _picture(self, images: Mapping[str, np.ndarray], camera: str) -> np.ndarray:
        if camera not in images:
            raise FoundryError(
                f"the observation lacks camera {camera!r}", f"it has {', '.join(sorted(images))}"
            )
        picture = as_stored(images[camera], self.contract.cameras[camera])
        return np.full_like(picture, _GREY) if self._blank else picture


def _sized(contract: PolicyContract, transform: RobotTransform) -> PolicyContract:
    """The contract with sizes that were not known before the data were read."""
    known = {**transform.proprio_dims, **transform.action_dims}

    def sized(fields: Mapping[str, FieldContract]) -> dict[str, FieldContract]:
        return {
            name: one.model_copy(update={"dims": one.dims or known.get(name, 0)})
            for name, one in fields.items()
        }

    update = {"observes": sized(contract.observes), "commands": sized(contract.commands)}
    return contract.model_copy(update=update)


def as_stored(picture: np.ndarray, camera: CameraContract) -> np.ndarray:
    """A camera's picture as conversion would have stored it, but for JPEG."""
    if camera.rotated:
        picture, _ = rotate(picture, camera.rotated)
    if camera.stored.size is None:
        return picture
    return transform(picture, camera.stored.size, camera.stored.method)[0]


def _at(past: Sequence[Mapping[str, Any]], step: int) -> Mapping[str, Any]:
    """The observation `step` (≤ 0) before the present; the oldest where there is none yet."""
    return past[max(0, len(past) - 1 + step)]


def load_policy(
    folder: str | Path,
    *,
    device: str = "cpu",
    blank_images: bool = False,
    threads: int | None = None,
    how: Acceleration = Acceleration(),
) -> Policy:
    """The policy in a train_vla artifact. blank_images: it sees grey pictures (a control)."""
    folder = Path(folder)
    if threads is not None:
        torch.set_num_threads(threads)
    settings = PolicySettings.load(folder)
    model = load_as(VLA, folder, device=device)
    tokenizer = Tokenizer.load(folder)
    if sha256_of(folder / NORMALIZER) != settings.normalizer:
        raise FoundryError(
            f"{folder / NORMALIZER} is not the normaliser that the policy was trained with",
            "take both files from one artifact",
        )
    transform = RobotTransform(
        settings.inputs,
        Normalizer.load(folder / NORMALIZER),
        tokenizer,
        model.backbone.tokens_per_image,
        model.backbone.marks,
    )
    return Policy(
        model,
        transform,
        _sized(settings.contract, transform),
        pad_id=tokenizer.pad_id,
        blank_images=blank_images,
        how=how,
    )
