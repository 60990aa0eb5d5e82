"""`foundry eval run`: an evaluation without a pipeline file, and what it refuses."""

import contextlib
import json
import threading

import pytest

from flows.cli import main
from foundry_core.serving.frontends.openpi import OpenPi
from foundry_core.serving.server import PolicyServer
from foundry_core.serving.stand_ins import WavePolicy, stand_in_contract
from tests.evaluation.lbm_eval.installed import Installed

pytestmark = pytest.mark.usefixtures("known_code")


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


@contextlib.contextmanager
def served_wave(hz: float):
    """The address of a policy that waves."""
    contract = stand_in_contract().model_copy(update={"hz": hz})
    server, stop, ports = PolicyServer(WavePolicy(contract), "wave"), threading.Event(), []
    ready = threading.Event()
    thread = threading.Thread(
        target=OpenPi(port=0).serve,
        args=(server, stop, lambda port: (ports.append(port), ready.set())),
    )
    thread.start()
    assert ready.wait(20)
    try:
        yield f"openpi://127.0.0.1:{ports[0]}"
    finally:
        stop.set()
        thread.join(10)
        server.stop()


@pytest.mark.slow("servers and evaluations in processes of their own")
def test_a_served_wave_is_examined_and_found_again(home, capsys):
    """Waving opens no window; the same question is not asked twice."""
    with served_wave(16.0) as address:
        for builds in (True, False):
            code, result = ended(
                capsys, address, "--benchmark", "metaworld",
                "--called", "wave@1", "--task", "window-open-v3", "--episodes", "2",
            )  # fmt: skip
            assert (code, result["status"]) == (0, "succeeded"), result["stages"][0]["error"]
            (stage,) = result["stages"]
            assert bool(stage["attempt"]) is builds
    facts = json.loads(next(home.glob("store/evaluate/*/evaluation.json")).read_text())
    assert facts["policy"] == "openpi:wave@1"
    assert facts["execute_steps"] == 8


LBM = ("--benchmark", "lbm", "--called", "wave@1", "--task", "pick_and_place_box")


def test_lbm_without_an_installation_is_one_line_while_planning(home, capsys, monkeypatch):
    monkeypatch.delenv("FOUNDRY_LBM_EVAL", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    code, answer = ended(capsys, "openpi://a:1", *LBM, "--dry-run")
    assert code == 2
    assert answer["error"].endswith("benchmark 'lbm' needs LBM Eval, which is not installed")
    assert "FOUNDRY_LBM_EVAL" in answer["hint"]


@pytest.mark.slow("servers and evaluations in processes of their own")
def test_lbm_eval_meets_a_policy_that_openpi_serves(home, capsys, monkeypatch, tmp_path):
    """LBM Eval → our server → an openpi client → somebody's policy, as one evaluation."""
    outcomes = {"pick_and_place_box/1": "failure", "pick_and_place_box/2": "crash"}
    program = Installed(tmp_path, outcomes)
    program.use(monkeypatch)
    with served_wave(10.0) as address:
        code, result = ended(capsys, address, *LBM, "--episodes", "3")
        assert (code, result["status"]) == (0, "succeeded"), result["stages"][0]["error"]
    assert len(program.begun) == 4
    folder = next(home.glob("store/evaluate/*/"))
    found = json.loads((folder / "evaluation.json").read_text())
    scenarios = found["tasks"]["pick_and_place_box"]["scenarios"]
    assert scenarios == {"success": [0], "failure": [1], "crash": [2]}
    assert found["packages"]["lbm_eval"] == "1.1.0rc2"
    assert found["criterion"] == "success at any time within the benchmark's own limit"
    assert found["crashes"] == {"solver": 1}
    (tree,) = folder.glob("results/PickAndPlaceBox/rollouts/*/results.json")
    assert json.loads(tree.read_text())["num_success"] == 1
    assert (folder / "records/episodes.jsonl").read_text().count("pick_and_place_box") == 3
