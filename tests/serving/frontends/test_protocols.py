"""A trained policy over every protocol: the same actions as alone, whoever else is there, and
clients that harm only themselves."""

import json
import math
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from served import Foretold, server_of, serving
from training_stages import Bench
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from foundry_core.data.robot.poses import decode_rot6d, encode_rot6d
from foundry_core.errors import FoundryError
from foundry_core.serving.client import ChunkBroker, LbmClient, OpenPiClient, VlaEvalClient
from foundry_core.serving.frontends.lbm import Lbm
from foundry_core.serving.frontends.openpi import OpenPi
from foundry_core.serving.frontends.vla_eval import VlaEval, episode_seed
from foundry_core.serving.options import ChunkOptions, ServingOptions
from foundry_core.serving.policy import load_policy
from foundry_core.serving.remote import RemotePolicy
from foundry_core.serving.server import PolicyServer
from foundry_core.serving.wire.arrays import pack_openpi, pack_vla_eval, unpack_vla_eval

ARM = "robot__{}__poses__right::panda"
XYZ, ROT, GRIP = (
    ARM.format("actual") + "__xyz",
    ARM.format("actual") + "__rot_6d",
    "robot__actual__grippers__right::panda_hand",
)
HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("served"))
    bench.llm()
    bench.vlm()
    return bench.vla()[0]


@pytest.fixture(scope="module")
def server(folder):
    server = PolicyServer(load_policy(folder), "tiny")
    server.warm_up()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def ports(server):
    with (
        serving(Lbm(port=0), server) as lbm,
        serving(OpenPi(port=0), server) as openpi,
        serving(VlaEval(port=0), server) as vla_eval,
    ):
        yield {"lbm": lbm, "openpi": openpi, "vla_eval": vla_eval}


def test_a_probe_of_the_port_is_a_line_and_no_traceback(ports, server, caplog):
    with socket.create_connection((HERE, ports["openpi"])):
        pass
    deadline = time.monotonic() + 10
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.01)
    (record,) = caplog.records
    assert record.getMessage().startswith("a connection was no client's: opening handshake failed")
    assert record.exc_info is None and "\n" not in record.getMessage()


def observation(number: int) -> dict:
    rng = np.random.default_rng(number)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    return {
        "images": {
            c: rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for c in ("front", "wrist")
        },
        "lowdim": {XYZ: rng.normal(size=3), ROT: encode_rot6d(rotation), GRIP: np.array([0.05])},
        "instruction": f"do {number % 3}",
    }


def alone(folder, seed: int, numbers) -> list[dict[str, np.ndarray]]:
    """Targets of each step as the bare policy gives them, replanned every execute_steps."""
    policy = load_policy(folder)
    policy.reset("a", seed)
    found = []
    for step, number in enumerate(numbers):
        if step % policy.execute_steps == 0:
            (chunk,) = policy.infer([("a", observation(number))])
        found.append({name: values[step % policy.execute_steps] for name, values in chunk.items()})
    return found


def vector(targets) -> np.ndarray:
    """As the plain mapping lays an action out."""
    action = {name.replace("action", "actual"): value for name, value in targets.items()}
    return np.concatenate([action[XYZ], action[ROT], action[GRIP]], axis=-1)


def as_vla_eval(seen: dict) -> dict:
    return {
        "images": seen["images"],
        "states": seen["lowdim"],
        "task_description": seen["instruction"],
    }


def as_openpi(seen: dict) -> dict:
    named = {f"observation/{k}": v for k, v in {**seen["images"], **seen["lowdim"]}.items()}
    return {**named, "prompt": seen["instruction"]}


def lbm_vector(action) -> np.ndarray:
    (pose,), (gripper,) = action.pose_status, action.gripper_status
    rotation = np.array(pose.pose.rotation).reshape(3, 3)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    return np.concatenate(
        [pose.pose.translation, encode_rot6d(rotation), [gripper.gripper_position]]
    )


def played(protocol: str, port: int, seed_or_task, numbers) -> list[np.ndarray]:
    """An episode by our own client."""
    if protocol == "lbm":
        with LbmClient(HERE, port) as client:
            client.reset(seed_or_task)
            return [lbm_vector(client.step(observation(n))) for n in numbers]
    if protocol == "openpi":
        with OpenPiClient(HERE, port) as client:
            broker = ChunkBroker(client, client.metadata["foundry"]["execute_steps"])
            broker.reset(seed_or_task)
            return [broker.step(as_openpi(observation(n))) for n in numbers]
    with VlaEvalClient(HERE, port) as client:
        client.start(seed_or_task)
        return [client.act(as_vla_eval(observation(n))) for n in numbers]


def seed_of(protocol: str, number: int):
    return {"task_id": number} if protocol == "vla_eval" else number


def number_of(protocol: str, seed) -> int:
    return episode_seed(0, {"task": seed}) if protocol == "vla_eval" else seed


@pytest.mark.parametrize("protocol", ["lbm", "openpi", "vla_eval"])
def test_an_episode_is_what_the_policy_does_alone(protocol, ports, folder, server):
    """Same seed, same actions; in M steps ceil(M/N) inferences."""
    numbers, seed = range(11), seed_of(protocol, 7)
    before = server.stats()["inferences"]
    found = played(protocol, ports[protocol], seed, numbers)
    again = played(protocol, ports[protocol], seed, numbers)
    asked = server.stats()["inferences"] - before
    assert asked == 2 * math.ceil(11 / server.execute_steps)
    wanted = alone(folder, number_of(protocol, seed), numbers)
    for one, same, targets in zip(found, again, wanted, strict=True):
        np.testing.assert_array_equal(one, same)
        np.testing.assert_allclose(one, vector(targets), atol=1e-5)
    other = played(protocol, ports[protocol], seed_of(protocol, 8), numbers)
    assert np.abs(np.array(other) - found).max() > 1e-3


def test_eight_interleaved_clients_of_all_protocols_act_as_each_does_alone(ports, folder, server):
    whos = [("lbm", "openpi", "vla_eval")[n % 3] for n in range(8)]
    numbers = [range(20 * n, 20 * n + 6) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda n: played(whos[n], ports[whos[n]], seed_of(whos[n], n), numbers[n]), range(8)
            )
        )
    for n, actions in enumerate(found):
        wanted = alone(folder, number_of(whos[n], seed_of(whos[n], n)), numbers[n])
        np.testing.assert_allclose(actions, [vector(t) for t in wanted], atol=1e-5)


@pytest.mark.parametrize("steps", [None, 2])
def test_every_protocol_says_the_rate_and_one_number_of_steps(folder, steps):
    """The rate of the data, and the steps per chunk of the server, wherever they stand."""
    options = ServingOptions(chunks=ChunkOptions(execute_steps=steps))
    server = PolicyServer(load_policy(folder), "tiny", options)
    try:
        with (
            serving(Lbm(port=0), server) as lbm,
            serving(OpenPi(port=0), server) as openpi,
            serving(VlaEval(port=0), server) as vla_eval,
        ):
            with OpenPiClient(HERE, openpi) as client:
                heard = [client.metadata["foundry"]]
            with VlaEvalClient(HERE, vla_eval) as client:
                heard.append(client.hello["foundry"])
            with LbmClient(HERE, lbm) as client:
                heard.append(json.loads(client.metadata().raw_policy_config))
            remote = RemotePolicy("openpi", f"{HERE}:{openpi}")
            assert (remote.hz, remote.execute_steps) == (16, steps or 3)
            remote.close()
    finally:
        server.stop()
    for said in heard:
        assert (said["hz"], said["contract"]["hz"]) == (16, 16)
        assert numbers_called("execute_steps", said) == [steps or 3] * 2


def numbers_called(name: str, document) -> list:
    """Values of every key of this name, however deep."""
    if isinstance(document, list):
        return [value for one in document for value in numbers_called(name, one)]
    if not isinstance(document, dict):
        return []
    deeper = numbers_called(name, list(document.values()))
    return [*([document[name]] if name in document else []), *deeper]


def steady(port, stop, found):
    """A well-behaved client that notes whatever goes wrong with it."""
    try:
        with VlaEvalClient(HERE, port) as client:
            while not stop.is_set():
                client.start({"task_id": 1})
                found.append([client.act(as_vla_eval(observation(n))) for n in range(3)])
    except Exception as error:
        found.append(error)


def told(port: int, data: bytes, path: str = "") -> str:
    """What an openpi client hears of one message: a line of text, then the end."""
    with connect(f"ws://{HERE}:{port}{path}", compression=None, max_size=None) as client:
        client.recv()
        client.send(data)
        answer = client.recv(20)
        assert isinstance(answer, str) and "\n" not in answer and "Traceback" not in answer
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(20)
        assert closed.value.rcvd.code == 1011
        return answer


def vla_told(port: int, *messages: dict, start: bool = True) -> list[str]:
    """The errors that a vla-eval client hears, on a connection that lives on."""
    heard = []
    with connect(f"ws://{HERE}:{port}", compression=None, max_size=None) as client:
        if start:
            client.send(packed("episode_start", {"task": {}}, 1))
        for seq, payload in enumerate(messages, 2):
            client.send(packed("observation", payload, seq))
            answer = unpack_vla_eval(client.recv(20))
            heard.append(answer["payload"].get("error", "action"))
            assert "\n" not in heard[-1]
        client.send(packed("hello", {"protocol_version": 1}, 99))
        answers = unpack_vla_eval(client.recv(20))
        assert (answers["type"], answers["seq"]) == ("hello", 99)
    return heard


def packed(kind: str, payload: dict, seq: int) -> bytes:
    return pack_vla_eval({"type": kind, "payload": payload, "seq": seq, "timestamp": 0.0})


def test_hostile_clients_harm_only_themselves_and_are_told_why(ports, server):
    """Garbage, 40 MB, NaN pictures, wrong cameras, one that disappears, two requests at once."""
    stop, found = threading.Event(), []
    honest = threading.Thread(target=steady, args=(ports["vla_eval"], stop, found))
    honest.start()
    try:
        openpi, good = ports["openpi"], observation(0)
        assert "no msgpack message" in told(openpi, b"\xc1garbage")
        assert "bytes, 3 came" in told(
            openpi,
            b"\x81\xa1x\x84\xc4\x0b__ndarray__\xc3\xc4\x04data"
            b"\xc4\x03abc\xc4\x05dtype\xa3<f4\xc4\x05shape\x91\x02",
        )
        nan = {**good, "images": {c: np.full((16, 16, 3), np.nan) for c in good["images"]}}
        assert "camera 'front' is float64 [16, 16, 3], not uint8" in told(
            openpi, pack_openpi(as_openpi(nan))
        )
        wrong = {**good, "images": {"left": good["images"]["front"]}}
        line = told(openpi, pack_openpi(as_openpi(wrong)))
        assert (
            "camera 'front' is missing: the observation shows no camera (sent, and read as nothing:"
            " observation/left); the policy looks through front, wrist"
        ) in line
        assert "nothing is allowed" not in line
        blank = {k: v for k, v in as_openpi(good).items() if XYZ not in k}
        assert f"'observation/{XYZ}' is missing" in told(openpi, pack_openpi(blank))
        assert "seed" in told(openpi, pack_openpi({**as_openpi(good), "foundry/reset": -1}))

        vla = ports["vla_eval"]
        states = {**good["lowdim"], XYZ: np.array([np.nan, 0, 0])}
        lines = vla_told(vla, as_vla_eval(nan), as_vla_eval({**good, "lowdim": states}), {})
        assert "not uint8" in lines[0] and "is not finite" in lines[1] and "missing" in lines[2]
        assert all(line.startswith("observation_failed: ") for line in lines)
        assert "never reset" in vla_told(vla, as_vla_eval(good), start=False)[0]

        for port in (openpi, vla):
            with connect(f"ws://{HERE}:{port}", compression=None) as client:
                with pytest.raises(ConnectionClosed) as closed:
                    client.send(bytes(40 << 20))
                    while True:
                        client.recv(20)
                assert closed.value.rcvd.code == 1009
        with LbmClient(HERE, ports["lbm"]) as client:
            client.reset(0)
            huge = {**good, "images": {"front": np.zeros((4000, 4000, 3), np.uint8)}}
            with pytest.raises(FoundryError, match=r"RESOURCE_EXHAUSTED|larger than max"):
                client.step(huge)
            with pytest.raises(FoundryError, match="camera 'wrist' is missing"):
                client.step({**good, "images": {"front": good["images"]["front"]}})
            assert lbm_vector(client.step(good)).shape == (10,)
        with LbmClient(HERE, ports["lbm"]) as client, pytest.raises(FoundryError, match="never"):
            client.step(good)

        with VlaEvalClient(HERE, vla) as client:  # goes without a word, its request on its way
            client.start({})
            client._send("observation", as_vla_eval(good))
            client._socket._socket.socket.shutdown(socket.SHUT_RDWR)
    finally:
        stop.set()
        honest.join(30)
    assert len(found) > 1
    for one in found:
        assert not isinstance(one, Exception), one
        np.testing.assert_allclose(one, found[0], atol=1e-5)


def test_two_requests_at_once_of_one_client():
    policy = Foretold()
    seen = {"states": {"robot__actual__line": np.array([0.5])}, "task_description": "go"}
    with server_of(policy) as server, serving(VlaEval(port=0), server) as port:
        policy.gate = threading.Event()
        with connect(f"ws://{HERE}:{port}", compression=None) as client:
            client.send(packed("episode_start", {"task": {}}, 1))
            client.send(packed("observation", seen, 2))
            client.send(packed("observation", seen, 3))
            refused = unpack_vla_eval(client.recv(20))
            policy.gate.set()
            answered = unpack_vla_eval(client.recv(20))
        assert (refused["seq"], answered["seq"], answered["type"]) == (3, 2, "action")
        assert "in flight, and another one came" in refused["payload"]["error"]

    policy = Foretold()
    policy.contract = policy.contract.model_copy(
        update={
            "observes": {GRIP: policy.contract.commands["grip"]},
            "commands": {GRIP.replace("actual", "action"): policy.contract.commands["grip"]},
        }
    )
    chunk = {GRIP.replace("actual", "action"): np.full((8, 1), 0.25)}
    waits = threading.Event()
    policy.infer = lambda requests, absent=frozenset(): waits.wait(10) and [chunk for _ in requests]
    with server_of(policy) as server, serving(Lbm(port=0), server) as port:
        one = {"images": {}, "lowdim": {GRIP: np.array([0.05])}, "instruction": ""}
        with LbmClient(HERE, port, client="twice") as a, LbmClient(HERE, port, client="twice") as b:
            a.reset(0)
            with ThreadPoolExecutor(1) as pool:
                first = pool.submit(a.step, one)
                time.sleep(0.3)
                with pytest.raises(FoundryError, match="in flight, and another one came"):
                    b.step(one)
                waits.set()
                # The policy's share of its stroke, in LBM's metres.
                assert first.result(10).gripper_status[0].gripper_position == pytest.approx(0.025)


def test_in_live_mode_the_newest_observation_is_answered():
    policy = Foretold(1)
    with server_of(policy) as server, serving(VlaEval(port=0), server) as port:
        policy.gate = threading.Event()
        with connect(f"ws://{HERE}:{port}", compression=None) as client:
            client.send(packed("episode_start", {"task": {}, "mode": "live"}, 1))
            for seq in range(2, 6):
                seen = {"states": {"robot__actual__line": np.array([float(seq)])}}
                client.send(packed("observation", seen, seq))
            client.send(packed("hello", {}, 6))  # read after all of them
            assert unpack_vla_eval(client.recv(20))["type"] == "hello"
            policy.gate.set()
            seqs = [unpack_vla_eval(client.recv(20))["seq"] for _ in range(2)]
        assert seqs == [2, 5]
        assert policy.observed == [2.0, 5.0]


def test_what_is_said_at_the_handshake(ports, server):
    contract = server.contract.model_dump(mode="json")
    layout = [
        {"field": XYZ.replace("actual", "action"), "first": 0, "end": 3},
        {"field": ROT.replace("actual", "action"), "first": 3, "end": 9},
        {"field": GRIP.replace("actual", "action"), "first": 9, "end": 10},
    ]
    with OpenPiClient(HERE, ports["openpi"]) as client:
        assert client.metadata["foundry"]["contract"] == contract
        assert client.metadata["foundry"]["actions"] == layout
    with VlaEvalClient(HERE, ports["vla_eval"]) as client:
        assert client.hello["foundry"]["contract"] == contract
        assert client.hello["protocol_version"] == 1
        assert client.hello["action_spec"]["position"]["format"] == "absolute_xyz"
        assert set(client.hello["observation_spec"]) == {"language", "front", "wrist"}
    with LbmClient(HERE, ports["lbm"]) as client:
        said = client.metadata()
        assert json.loads(said.raw_policy_config)["contract"] == contract
        assert said.is_language_conditioned
    with connect(f"ws://{HERE}:{ports['vla_eval']}", compression=None) as client:
        client.send(packed("hello", {"protocol_version": 2}, 5))
        answer = unpack_vla_eval(client.recv(20))
        assert "speaks protocol_version 2, this server 1" in answer["payload"]["error"]


def test_health(ports):
    import grpc

    from foundry_core.serving.wire import lbm

    def get(port, path):
        with urllib.request.urlopen(f"http://{HERE}:{port}{path}", timeout=10) as answer:
            return answer.read().decode()

    assert json.loads(get(ports["vla_eval"], "/health")) == {"status": "ok"}
    assert get(ports["openpi"], "/healthz").strip() == "OK"
    assert "latency" in json.loads(get(ports["vla_eval"], "/config"))["stats"]
    request = lbm.HEALTH_MESSAGES["HealthCheckRequest"]()
    with grpc.insecure_channel(f"{HERE}:{ports['lbm']}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=lbm.HEALTH_MESSAGES["HealthCheckResponse"].FromString,
        )
        assert check(request, timeout=10).status == 1


def test_a_token_and_no_web_pages():
    token = "0123456789abcdef"
    with server_of(Foretold()) as server:
        with serving(VlaEval(port=0, token=token), server) as port:
            for given in ("", "wrong"):
                with pytest.raises(FoundryError, match=r"refuses: 401 the token is missing"):
                    VlaEvalClient(HERE, port, token=given)
            VlaEvalClient(HERE, port, token=token).close()
            connect(f"ws://{HERE}:{port}/?token={token}").close()
            with pytest.raises(Exception, match="403"):
                connect(f"ws://{HERE}:{port}/?token={token}", origin="http://evil.example")
        with serving(OpenPi(port=0, token=token), server) as port:
            with pytest.raises(FoundryError, match="401"):
                OpenPiClient(HERE, port)
            OpenPiClient(HERE, port, token=token).close()


def test_lbm_asks_for_the_token_and_holds_arms_that_the_policy_does_not_move(folder):
    token = "0123456789abcdef"
    server = PolicyServer(load_policy(folder), "tiny")
    try:
        with serving(Lbm(port=0, token=token), server) as port:
            with LbmClient(HERE, port) as client, pytest.raises(FoundryError, match="token"):
                client.reset(0)
            with LbmClient(HERE, port, token=token) as client:
                client.reset(0)
                seen, turned = observation(1), observation(2)["lowdim"][ROT]
                left = "robot__{}__{}__left::panda{}"
                for kind, height in (("actual", 0.1), ("desired", 0.2)):
                    seen["lowdim"] |= {
                        left.format(kind, "poses", "__xyz"): np.array([0, 0, height]),
                        left.format(kind, "poses", "__rot_6d"): turned,
                        left.format(kind, "grippers", "_hand"): np.array([height / 10]),
                    }
                action = client.step(seen)
        poses = {one.robot_name: one.pose for one in action.pose_status}
        grippers = {one.gripper_name: one.gripper_position for one in action.gripper_status}
        assert list(poses["left::panda"].translation) == [0, 0, 0.2]
        np.testing.assert_allclose(
            np.array(poses["left::panda"].rotation).reshape(3, 3), decode_rot6d(turned), atol=1e-12
        )
        assert grippers["left::panda_hand"] == pytest.approx(0.02)
        assert set(poses) == {"right::panda", "left::panda"}
        assert action.timestamp_sent.sec == -1
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("front", "options", "message"),
    [
        (OpenPi, {"history": 2}, "looks back 2 steps, and openpi's clients show one"),
        (OpenPi, {"chunks": {"delay": 1}}, "ensemble and delay cannot apply"),
        (Lbm, {}, "LBM Eval does not measure 'robot__actual__line'"),
    ],
)
def test_what_a_protocol_cannot_serve_is_said_at_the_start(front, options, message):
    policy = Foretold(4, history=options.pop("history", 0))
    with server_of(policy, **options) as server, pytest.raises(FoundryError, match=message):
        front(port=0).check(server)


def test_a_port_that_is_taken_is_named():
    with server_of(Foretold()) as server, serving(VlaEval(port=0), server) as port:
        with pytest.raises(FoundryError, match=rf"openpi: 127\.0\.0\.1:{port} cannot be used"):
            OpenPi(port=port).serve(server, threading.Event())
        with pytest.raises(FoundryError, match=r"no policy server answers at 127\.0\.0\.1:1"):
            OpenPiClient(HERE, 1)
