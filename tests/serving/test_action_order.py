"""The numbers of an action lie in the recipe's order: on disk, over each protocol, and back."""

import json

import numpy as np
import pytest
from served import server_of, serving

from flows.cli.commands.policy import _announce
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, PolicyContract
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.models.policy_settings import PolicySettings
from foundry_core.serving.client import OpenPiClient, VlaEvalClient
from foundry_core.serving.frontends.openpi import OpenPi
from foundry_core.serving.frontends.vla_eval import VlaEval
from foundry_core.serving.mapping import plain
from foundry_core.serving.remote import RemotePolicy
from foundry_core.serving.stand_ins import NullPolicy

HAND, GRIP, JOINTS = "robot__action__hand", "robot__action__gripper", "robot__actual__joints"
XYZ, ROT = "robot__action__arm__xyz", "robot__action__arm__rot_6d"
SIZES = {HAND: 6, GRIP: 1, XYZ: 3, ROT: 6}
ROWS = [1.0, 0, 0, 0, 1, 0]
TOLD = {HAND: [1.0, 2, 3, 4, 5, 6], GRIP: [0.25], XYZ: [7.0, 8, 9], ROT: ROWS}
HERE, BLACK = "127.0.0.1", np.zeros((4, 4, 3), np.uint8)


class Says(NullPolicy):
    """The same targets at every step."""

    def infer(self, requests, absent=frozenset()):
        chunk = {
            name: np.tile(np.array(TOLD[name]), (self.contract.ahead, 1))
            for name in reversed(self.contract.commands)
        }
        return [dict(chunk) for _ in requests]


def saved(folder, *fields: str) -> PolicySettings:
    """policy.json of a recipe that lists these action fields, written and read again."""
    contract = PolicyContract(
        hz=12.5,
        cameras={"eye": CameraContract()},
        observes={JOINTS: FieldContract(dims=2)},
        commands={name: FieldContract(dims=SIZES[name]) for name in fields},
        ahead=4,
        execute_steps=2,
    )
    inputs = RobotInputs(
        cameras=("eye",), proprio_fields=(JOINTS,), action_fields=fields, horizon=4
    )
    PolicySettings(contract=contract, inputs=inputs, normalizer="0" * 64).save(folder)
    return PolicySettings.load(folder)


@pytest.mark.parametrize("order", [(HAND, GRIP), (GRIP, HAND), (GRIP, XYZ, ROT), (XYZ, GRIP, ROT)])
@pytest.mark.parametrize("front", [OpenPi, VlaEval])
def test_a_flat_action_has_the_fields_in_the_order_of_the_recipe(tmp_path, order, front):
    policy = Says(saved(tmp_path, *order).contract)
    wanted = np.concatenate([TOLD[name] for name in order])
    ends = np.cumsum([SIZES[name] for name in order]).tolist()
    layout = [
        {"field": name, "first": end - SIZES[name], "end": end}
        for name, end in zip(order, ends, strict=True)
    ]
    with server_of(policy) as server, serving(front(port=0), server) as port:
        if front is OpenPi:
            with OpenPiClient(HERE, port) as client:
                said = client.metadata["foundry"]
                (first, *_) = client.infer(
                    {"observation/eye": BLACK, f"observation/{JOINTS}": np.zeros(2)}
                )
        else:
            with VlaEvalClient(HERE, port) as client:
                said = client.hello["foundry"]
                client.start({})
                first = client.act({"images": {"eye": BLACK}, "states": {JOINTS: np.zeros(2)}})
        assert said["actions"] == layout
        assert list(said["contract"]["commands"]) == list(order)
        np.testing.assert_array_equal(first, wanted)

        remote = RemotePolicy(front.model_fields["kind"].default, f"{HERE}:{port}")
        remote.reset("a", 0)
        seen = {"images": {"eye": BLACK}, "lowdim": {JOINTS: np.zeros(2)}, "instruction": ""}
        (targets,) = remote.infer([("a", seen)])
        assert {name: values[0].tolist() for name, values in targets.items()} == {
            name: TOLD[name] for name in order
        }
        remote.close()


def test_serve_prints_the_rate_the_steps_and_that_prompts_change_nothing(capsys, tmp_path):
    policy = Says(saved(tmp_path, HAND, GRIP).contract)
    with server_of(policy) as server:
        _announce(server, {"openpi": 8000}, as_json=False)
        _announce(server, {"openpi": 8000}, as_json=True)
    out, err = capsys.readouterr()
    assert "12.5 Hz, 2 of 4 predicted steps carried out" in err
    assert err.count("this policy reads no words: prompts change nothing") == 2
    told = json.loads(out)
    assert (told["hz"], told["execute_steps"], told["reads_words"]) == (12.5, 2, False)


def test_a_policy_of_before_keeps_the_order_that_it_was_served_in(tmp_path):
    """Sorted by name, whole poses before other fields, position before rotation."""
    fields = (GRIP, ROT, HAND, XYZ)
    assert list(saved(tmp_path, *fields).contract.commands) == list(fields)
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 2}))
    settings = PolicySettings.load(tmp_path)
    assert list(settings.contract.commands) == [XYZ, ROT, GRIP, HAND]
    mapping = plain(settings.contract, images="", fields="", instruction="say")
    action = mapping.actions({name: np.array([TOLD[name]]) for name in fields}, {})
    assert action[0].tolist() == [*TOLD[XYZ], *TOLD[ROT], *TOLD[GRIP], *TOLD[HAND]]


def test_a_server_that_states_another_order_is_believed():
    """As servers of before this rule: what they announce of an action decides."""
    from foundry_core.serving.remote import _meanings

    commands = {name: FieldContract(dims=SIZES[name]) for name in (GRIP, XYZ, ROT)}
    contract = PolicyContract(cameras={}, observes={}, commands=commands, ahead=1, execute_steps=1)
    spans = {XYZ: (0, 3), ROT: (3, 9), GRIP: (9, 10)}
    actions = [{"field": n, "first": first, "end": end} for n, (first, end) in spans.items()]
    said = {"contract": contract.model_dump(mode="json"), "actions": actions}
    mapping, _ = _meanings("openpi", "", said, "there")
    row = np.concatenate([TOLD[name] for name in spans])
    found = mapping.targets(row[None], {})
    assert {name: values[0].tolist() for name, values in found.items()} == {
        name: TOLD[name] for name in spans
    }


@pytest.mark.parametrize(
    "actions", [None, 5, "xyz", [7], [{}], [{"field": ["a"]}], [{"field": XYZ}] * 3, {XYZ: 1}]
)
def test_a_server_that_announces_nonsense_is_taken_by_its_contract(actions):
    from foundry_core.serving.remote import _meanings

    commands = {name: FieldContract(dims=SIZES[name]) for name in (GRIP, XYZ, ROT)}
    contract = PolicyContract(cameras={}, observes={}, commands=commands, ahead=1, execute_steps=1)
    said = {"contract": contract.model_dump(mode="json"), "actions": actions}
    assert list(_meanings("openpi", "", said, "there")[1].commands) == [GRIP, XYZ, ROT]
