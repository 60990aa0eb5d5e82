"""A policy that is served elsewhere plays our exams as it does in the same process."""

import numpy as np
import pytest
from served import server_of, serving

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, PolicyContract
from foundry_core.errors import FoundryError
from foundry_core.evaluation.rollout.episodes import plan_episodes, run_episodes
from foundry_core.serving.adapted import AdaptedPolicy
from foundry_core.serving.frontends.openpi import OpenPi
from foundry_core.serving.frontends.vla_eval import VlaEval
from foundry_core.serving.remote import RemotePolicy
from tests.evaluation.toy_benchmark import FIELD, MEASURED, Line, Walker


class Served(Walker):
    """Walker with a contract, as what is served states one."""

    history = 0

    def __init__(self) -> None:
        super().__init__(execute_steps=2, noise=2.0)
        self.contract = PolicyContract(
            hz=10,
            cameras={"eye": CameraContract()},
            observes={MEASURED: FieldContract(dims=1)},
            commands={FIELD: FieldContract(dims=1)},
            ahead=4,
            execute_steps=2,
        )

    def forget(self, client):
        self.clients.pop(client, None)

    def infer(self, requests, absent=frozenset()):
        return super().infer(requests)


def outcomes(policy) -> list[tuple]:
    benchmark = Line()
    plans = plan_episodes(benchmark, ["near", "far"], first=0, count=4, seed=3)
    adapted = AdaptedPolicy(policy, benchmark.contract(), benchmark.name)
    results = run_episodes(benchmark, adapted, plans, env_workers=3)
    return [(one.key, one.success, one.steps) for one in results]


@pytest.mark.parametrize("front", [OpenPi, VlaEval])
def test_an_exam_over_the_wire_comes_out_as_in_the_process(front):
    kind = front.model_fields["kind"].default
    wanted = outcomes(Served())
    assert sum(success for _, success, _ in wanted) > 0
    policy = Served()
    with server_of(policy) as server, serving(front(port=0), server) as port:
        remote = RemotePolicy(kind, f"127.0.0.1:{port}")
        assert (remote.cameras, remote.hz) == (("eye",), 10)
        assert outcomes(remote) == wanted
        remote.close()


def test_a_server_that_says_nothing_needs_a_mapping():
    """As openpi's own: metadata without a contract."""
    import threading

    from websockets.sync.server import serve

    from foundry_core.serving.wire.arrays import pack_openpi, unpack_openpi

    asked = []

    def talk(connection):
        connection.send(pack_openpi({"anything": 1}))
        for data in connection:
            asked.append(unpack_openpi(data))
            connection.send(pack_openpi({"actions": np.tile([0.5, 0, 0, 0, 0, 0, -1], (8, 1))}))

    with serve(talk, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.socket.getsockname()[1]}"
        with pytest.raises(FoundryError, match="does not say what its numbers mean"):
            RemotePolicy("openpi", address)
        remote = RemotePolicy("openpi", address, mapping="libero")
        assert (remote.hz, remote.cameras) == (20, ("scene", "wrist"))
        arm = "robot__{}__poses__right::panda__{}"
        seen = {
            "images": {c: np.zeros((8, 8, 3), np.uint8) for c in remote.cameras},
            "lowdim": {
                arm.format("actual", "xyz"): np.array([0.1, 0.2, 0.3]),
                arm.format("actual", "rot_6d"): np.array([1.0, 0, 0, 0, 1, 0]),
                "robot__actual__grippers__right::panda_hand": np.array([1.0]),
            },
            "instruction": "go",
        }
        remote.reset("a", 0)
        (targets,) = remote.infer([("a", seen)])
        # Half of the largest step, then on from a quarter of the way.
        np.testing.assert_allclose(
            targets[arm.format("action", "xyz")][:2],
            [[0.125, 0.2, 0.3], [0.13125, 0.2, 0.3]],
            atol=1e-9,
        )
        assert (targets["robot__action__grippers__right::panda_hand"] == 1).all()
        assert asked[0]["prompt"] == "go"
        np.testing.assert_allclose(
            asked[0]["observation/state"], [0.1, 0.2, 0.3, 0, 0, 0, 0.04, -0.04], atol=1e-6
        )
        remote.close()
        server.shutdown()


def test_mistakes_are_named():
    with pytest.raises(FoundryError, match="no policy server answers at"):
        RemotePolicy("openpi", "127.0.0.1:1")
    for address in ("nowhere", "host:0", "host:x"):
        with pytest.raises(FoundryError, match="is no address"):
            RemotePolicy("openpi", address)
    with pytest.raises(FoundryError, match="not 'grpc'"):
        RemotePolicy("grpc", "127.0.0.1:1")
