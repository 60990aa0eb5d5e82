"""What an outside package's own tests look like: run from its folder, with Foundry installed.

The files under test are those of docs/extending.md; nothing of Foundry was edited.
"""

import json
import socket
from pathlib import Path

import numpy as np
import pytest

import flows
from foundry_core.errors import FoundryError

PIPELINE = "acme.yaml"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_STORE", str(tmp_path / "store"))
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for number in range(6):
        at = np.linspace(0, 0.1 * (number + 1), 12)
        rows = np.stack([at, 0 * at, 0 * at, at + 0.05, 0 * at, 0 * at], axis=1)
        path = recordings / f"stop_there-{number}.csv"
        np.savetxt(path, rows, delimiter=",", header="x,y,z,to_x,to_y,to_z", comments="")
    return {"robot.source.path": str(recordings)}


def test_one_of_each_in_one_pipeline(home, tmp_path):
    """Format → shards → head trained, its metrics at the sink → policy examined on the benchmark,
    all dispatched by the backend."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.settimeout(10)
    sink = {"kind": "acme_statsd", "port": server.getsockname()[1]}
    changes = home | {"vla.resources.sinks": [sink]}
    result = flows.run(PIPELINE, changes, dispatch="acme-single", quiet=True)
    assert result["status"] == "succeeded", result
    assert result["metrics"]["robot.episodes"] == 6
    assert result["metrics"]["evaluate.n"] == 3
    received = server.recv(1000).decode()
    assert received.startswith("vla.") and received.endswith("|g")
    assert (tmp_path / "home" / "acme.lock").exists()
    again = flows.plan(PIPELINE, changes)
    assert again.to_run() == []


def test_an_edited_member_runs_again_what_uses_it(home):
    """Keys see the code of the members that a recipe chose, as they see Foundry's own."""
    before = {name: row.key for name, row in flows.plan(PIPELINE, home).stages.items()}
    import acme.acme_csv

    path = Path(acme.acme_csv.__file__)
    source = path.read_text()
    try:
        path.write_text(source.replace("40 + 20 *", "41 + 20 *"))
        after = {name: row.key for name, row in flows.plan(PIPELINE, home).stages.items()}
    finally:
        path.write_text(source)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"robot", "stats", "vla", "evaluate"}


@pytest.mark.parametrize(
    ("path", "value", "near"),
    [
        ("robot.source", {"format": "acme_cvs", "path": "x"}, "acme_csv"),
        ("vla.model.head", {"kind": "acme_mpl"}, "acme_mlp"),
        ("evaluate.benchmark", "acme_trak", "acme_track"),
        ("vla.resources.sinks", [{"kind": "acme_statsq"}], "acme_statsd"),
        ("vla.model.head", {"kind": "acme_mlp", "hiden": 3}, "hidden"),
    ],
)
def test_a_mistyped_name_is_offered_the_nearest(home, path, value, near):
    with pytest.raises(FoundryError) as caught:
        flows.plan(PIPELINE, home | {path: value})
    assert near in str(caught.value)


def test_dispatch_names_are_offered_too(home):
    with pytest.raises(FoundryError, match="acme-single"):
        flows.run(PIPELINE, home, dispatch="acme-singel", quiet=True)


def test_settings_are_listed_with_ours():
    from foundry_core.pipeline.recipe_help import settings_of
    from tasks.train_vla import STAGE

    paths = {setting.path for setting in settings_of(STAGE.Recipe)}
    assert "model.head[acme_mlp].hidden" in paths
    assert "model.head[flow].steps" in paths


def test_a_saved_head_comes_back(tmp_path):
    import torch
    from acme.acme_mlp import AcmeMlpConfig

    from foundry_core.models.config import VLAConfig
    from foundry_core.models.heads.networks.base import Observation, Request, Targets
    from foundry_core.models.interfaces import Prompts
    from foundry_core.models.noise import Key

    config = VLAConfig.model_validate({"head": {"kind": "acme_mlp", "hidden": 8}})
    assert VLAConfig.model_validate(json.loads(config.model_dump_json())) == config
    assert isinstance(config.head, AcmeMlpConfig)
    sizes = {"condition_dim": 6, "proprio_dim": 2, "proprio_steps": 1, "horizon": 4}
    head = config.head.build(action_dim=3, **sizes)
    torch.manual_seed(0)
    target = torch.randn(16, 4, 3)
    condition, proprio, mask = torch.randn(16, 1, 6), torch.randn(16, 1, 2), torch.ones(16, 4, 3)
    prompts = Prompts.of([[1]] * 16)
    seen = Observation(prompts=prompts, condition=condition, proprio=proprio)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    losses = []
    for step in range(60):
        total, count = head.training_loss_terms(
            seen, Targets(actions=target, mask=mask > 0), Key(0, step, torch.arange(16))
        )
        losses.append(float(total.sum() / count))
        optimizer.zero_grad()
        (total.sum() / count).backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    request = Request(key=Key(0, 0, torch.arange(16)))
    assert head.sample(seen, request).shape == (16, 4, 3)


def test_the_exam_can_be_passed():
    from acme.acme_track import BENCHMARK

    benchmark = BENCHMARK(reach=0.05)
    environment = benchmark.environment("stop")
    environment.reset(benchmark.scenario("stop", 3))
    mark = int(np.argmax(environment.observe()["images"]["overview"][0, :, 0])) / 31
    for _ in range(40):
        environment.act({"robot__action__xyz": np.array([mark, 0, 0])})
    assert environment.success
