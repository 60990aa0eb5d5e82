"""policy.json: what serving needs besides weights, tokenizer and normaliser. Torch-free."""

from pathlib import Path
from typing import Literal, Self

from foundry_core.config.validation import validate
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.errors import FoundryError
from foundry_core.files import read_json, write_json
from foundry_core.pipeline.stage import Config

_FILE = "policy.json"


class PolicySettings(Config):
    """hz: the rate of its actions. execute_steps: targets carried out before planning again."""

    format: Literal["foundry-policy"] = "foundry-policy"
    version: Literal[1] = 1
    hz: float
    execute_steps: int
    inputs: RobotInputs

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
        settings: Self = validate(cls, document, _FILE)
        return settings
