"""policy.json: what serving needs besides weights, tokenizer and normaliser. Torch-free."""

from pathlib import Path
from typing import Literal, Self

from foundry_core.config.validation import validate
from foundry_core.data.contract.statements import PolicyContract
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.errors import FoundryError
from foundry_core.files import read_json, write_json
from foundry_core.pipeline.stage import Config

_FILE = "policy.json"
NORMALIZER = "normalizer.json"


class PolicySettings(Config):
    """contract: what it was trained to see and say. normalizer: digest of the normaliser that lies
    beside it, so that no other can be used with it."""

    format: Literal["foundry-policy"] = "foundry-policy"
    version: Literal[2] = 2
    contract: PolicyContract
    inputs: RobotInputs
    normalizer: str

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
        return settings
