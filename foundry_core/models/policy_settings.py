"""policy.json: what serving needs besides weights, tokenizer and normaliser. Torch-free."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from foundry_core.config.validation import validate
from foundry_core.data.contract.statements import PolicyContract
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.errors import FoundryError
from foundry_core.files import read_json, write_json
from foundry_core.pipeline.stage import Config

_FILE = "policy.json"
NORMALIZER = "normalizer.json"
_HALVES = ("__xyz", "__rot_6d")


class PolicySettings(Config):
    """contract: what it was trained to see and say. normalizer: digest of the normaliser that lies
    beside it, so that no other can be used with it. version 2: actions were served in another order
    than that of the inputs; policies of it keep it."""

    format: Literal["foundry-policy"] = "foundry-policy"
    version: Literal[2, 3] = 3
    contract: PolicyContract
    inputs: RobotInputs
    normalizer: str

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        """What it states is of what it takes: the file may come from anywhere."""
        for what, stated, taken in (
            ("cameras", self.contract.cameras, self.inputs.cameras),
            ("observes", self.contract.observes, self.inputs.measured_fields),
            ("commands", self.contract.commands, self.inputs.target_fields),
        ):
            if set(stated) != set(taken):
                raise ValueError(
                    f"contract.{what} {sorted(stated)} are not those of its inputs, {sorted(taken)}"
                )
        if self.contract.hz is None:
            raise ValueError("contract.hz is null: a policy acts at a rate")
        return self

    def save(self, folder: Path) -> None:
        """Writes policy.json."""
        write_json(folder / _FILE, self.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Of a train_vla artifact; FoundryError where there is none."""
        try:
            document = read_json(folder / _FILE)
        except FileNotFoundError:
            raise FoundryError(
                f"{str(folder)!r} holds no {_FILE}", "point it at a train_vla artifact"
            ) from None
        if isinstance(document, dict) and document.get("version") == 1:
            raise FoundryError(
                f"{folder / _FILE} was written before policies stated their contract",
                "train the policy again",
            )
        settings: Self = validate(cls, document, _FILE)
        return settings.model_copy(update={"contract": settings._ordered()})

    def _ordered(self) -> PolicyContract:
        """The contract in the order of the inputs, which its document lost."""
        inputs = self.inputs
        targets = inputs.target_fields if self.version > 2 else _as_served_before(self.contract)
        return self.contract.ordered(inputs.cameras, inputs.measured_fields, targets)


def _as_served_before(contract: PolicyContract) -> list[str]:
    """The commands in the order in which a server of version 2 laid out an action: whole poses by
    name, each position then rotation, and the other fields by name."""
    names = sorted(contract.commands)
    poses = [
        pair
        for name in names
        if name.endswith(_HALVES[0])
        and set(pair := [name.removesuffix(_HALVES[0]) + half for half in _HALVES]) <= set(names)
    ]
    halves = [name for pair in poses for name in pair]
    return [*halves, *(name for name in names if name not in halves)]
