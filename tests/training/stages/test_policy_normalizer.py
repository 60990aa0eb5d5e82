"""What a policy's training says of its normaliser before it starts."""

import logging

import numpy as np
import pytest

from foundry_core.data.contract.statements import policy_contract
from foundry_core.data.loading.config import RobotData
from foundry_core.data.robot.transform_config import NormalizationConfig, RobotInputs
from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.training.distributed import World
from foundry_core.training.stages.vla import policy_normalizer

FIELD = "robot__action__joint_position__right::panda"
INPUTS = RobotInputs(cameras=("front",), proprio_fields=(), action_fields=(FIELD,), horizon=2)


@pytest.mark.parametrize(("mode", "lines"), [("percentile_5_95", 1), ("min_max", 0)])
def test_a_line_per_dimension_that_is_clipped_a_lot(
    caplog: pytest.LogCaptureFixture, mode: str, lines: int
) -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, size=(2000, 2, 2))
    values[::33, :, 1] = 50.0
    item = ("e", {FIELD: values}, np.ones((2000, 2), bool))
    robot = RobotData(batch_size=1, inputs=INPUTS, normalization=NormalizationConfig(mode=mode))
    contract = policy_contract(INPUTS, 1, {})
    with caplog.at_level(logging.WARNING):
        policy_normalizer(compute_statistics([item]), robot, contract, World())
    noted = caplog.messages
    assert len(noted) == lines
    assert all(line.startswith("3.0% of dimension 1 of " + FIELD) for line in noted)
