"""`foundry eval run`: an evaluation without a pipeline file, and what it refuses."""

import json
import threading

import pytest

from flows.cli import main
from foundry_core.serving.frontends.openpi import OpenPi
from foundry_core.serving.server import PolicyServer
from foundry_core.serving.stand_ins import WavePolicy, stand_in_contract


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def ended(capsys, *arguments) -> tuple[int, dict]:
    code = main(["eval", "run", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_served_policy_is_planned_by_its_name_and_not_by_its_address(home, capsys):
    keys = []
    for address, name in (("a:1", "x@1"), ("b:2", "x@1"), ("a:1", "y@1")):
        code, plan = ended(
            capsys, f"openpi://{address}", "--benchmark", "metaworld", "--called", name, "--dry-run"
        )
        assert code == 0
        (stage,) = plan["stages"]
        keys.append(stage["key"])
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("openpi://a:1", "--benchmark", "metaworld"), "--called is needed"),
        (("0123456789", "--benchmark", "metaworld"), "is no folder, no artifact and no run"),
        (
            ("openpi://a:1", "--called", "x", "--benchmark", "metawrld"),
            "unknown benchmark 'metawrld'",
        ),
    ],
)
def test_mistakes_are_one_line(home, capsys, arguments, message):
    code, answer = ended(capsys, *arguments)
    assert code == 2
    assert message in answer["error"]


@pytest.mark.slow
def test_a_served_wave_is_examined_and_found_again(home, capsys):
    """Waving opens no window; the same question is not asked twice."""
    contract = stand_in_contract().model_copy(update={"hz": 16.0})
    server, stop, ports = PolicyServer(WavePolicy(contract), "wave"), threading.Event(), []
    ready = threading.Event()
    thread = threading.Thread(
        target=OpenPi(port=0).serve,
        args=(server, stop, lambda port: (ports.append(port), ready.set())),
    )
    thread.start()
    assert ready.wait(20)
    try:
        for builds in (True, False):
            code, result = ended(
                capsys, f"openpi://127.0.0.1:{ports[0]}", "--benchmark", "metaworld",
                "--called", "wave@1", "--task", "window-open-v3", "--episodes", "2",
            )  # fmt: skip
            assert (code, result["status"]) == (0, "succeeded"), result["stages"][0]["error"]
            (stage,) = result["stages"]
            assert bool(stage["attempt"]) is builds
    finally:
        stop.set()
        thread.join(10)
        server.stop()
    facts = json.loads(next(home.glob("store/evaluate/*/evaluation.json")).read_text())
    assert facts["policy"] == "openpi:wave@1"
    assert facts["execute_steps"] == 8
