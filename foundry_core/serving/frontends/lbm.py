"""TRI's LBM Eval over gRPC (package lbm_policy_interface): one action per observation, the server
owns the chunk.

Fields go by the names of LBM's data. A robot that the observation shows and the policy does not
command holds what it was last told (`desired`), else where it is. The interface has no words for
what went wrong: success is false, the reason stands in the log and in the trailing metadata.
"""

import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from foundry_core.data.contract.fields import FieldContract, canonical_field
from foundry_core.data.contract.statements import ExamContract
from foundry_core.errors import FoundryError
from foundry_core.serving.frontends.base import FrontEnd

if TYPE_CHECKING:
    from foundry_core.serving.server import PolicyServer

OPEN_METRES = 0.1
REASON = "foundry-error"
_STOP_SECONDS = 5.0
_MEASURED = re.compile(
    r"robot__(actual|desired)__(poses__.+__(xyz|rot_6d)|(grippers|wrench|external_wrench"
    r"|joint_(position|velocity|torque|torque_external))__.+)"
)
_COMMANDED = re.compile(r"robot__action__(poses__.+__(xyz|rot_6d)|grippers__.+)")


class Lbm(FrontEnd):
    kind: Literal["lbm"] = "lbm"
    port: int = Field(50051, ge=0, le=65535, description="0: a free one")

    def check(self, server: "PolicyServer") -> None:
        if self.mapping:
            raise FoundryError("lbm: its fields have names of their own", "leave the mapping out")
        self._adapter(server)

    def serve(
        self,
        server: "PolicyServer",
        stop: threading.Event,
        ready: Callable[[int], None] = lambda port: None,
    ) -> None:
        import asyncio

        asyncio.run(self._serve(server, stop, ready))

    async def _serve(
        self, server: "PolicyServer", stop: threading.Event, ready: Callable[[int], None]
    ) -> None:
        import asyncio

        import grpc

        from foundry_core.serving.wire import MESSAGE_BYTES, lbm

        options = [
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        ]
        listening = grpc.aio.server(options=options)
        servicer = _Servicer(self, server, self._adapter(server))
        for method, (service, request, _) in lbm.SERVICES.items():
            _add(listening, f"{lbm.PACKAGE}.{service}", method, lbm.MESSAGES[request], servicer)
        check = lbm.HEALTH_MESSAGES["HealthCheckRequest"]
        _add(listening, f"{lbm.HEALTH}.Health", "Check", check, servicer)
        try:
            port = listening.add_insecure_port(f"{self.host}:{self.port}")
        except RuntimeError:
            raise FoundryError(
                f"lbm: {self.host}:{self.port} cannot be used",
                "another port, or end what holds this one",
            ) from None
        await listening.start()
        ready(port)
        await asyncio.to_thread(stop.wait)
        await listening.stop(_STOP_SECONDS)

    def _adapter(self, server: "PolicyServer") -> Any:
        from foundry_core.serving.adapted import Adapter

        contract = server.contract
        for names, known, verb in (
            (contract.observes, _MEASURED, "measure"),
            (contract.commands, _COMMANDED, "take"),
        ):
            for name in names:
                if not known.fullmatch(name):
                    raise FoundryError(
                        f"lbm: LBM Eval does not {verb} {name!r}",
                        "poses, grippers and joints by LBM's names, e.g. "
                        "robot__action__poses__right::panda__xyz",
                    )
        exam = ExamContract(
            observes={name: meaning(name, one) for name, one in contract.observes.items()},
            commands={name: meaning(name, one) for name, one in contract.commands.items()},
        )
        return Adapter(contract, exam, "LBM Eval", server.name)


class _Servicer:
    def __init__(self, front: Lbm, server: "PolicyServer", adapter: Any) -> None:
        from foundry_core.serving.wire import lbm

        self._front, self._server, self._adapter = front, server, adapter
        self._wire = lbm

    async def PolicyReset(self, request: Any, context: Any) -> Any:
        answer = self._wire.MESSAGES["PolicyResetResponse"]()
        try:
            client = self._client(request, context)
            self._server.reset(client, request.seed, self._adapter)
            answer.success = True
        except Exception as error:
            self._refuse(request, context, error)
        return answer

    async def PolicyStep(self, request: Any, context: Any) -> Any:
        from foundry_core.serving.frontends.websocket import answer_of

        answer = self._wire.MESSAGES["PolicyStepResponse"]()
        try:
            client = self._client(request, context)
            observation = self._wire.observation_of(request.observation)
            targets = await answer_of(self._server.step(client, observation))
            self._fill(answer.action, targets, request.observation.robot)
            answer.success = True
        except Exception as error:
            self._refuse(request, context, error)
        return answer

    async def GetPolicyMetadata(self, request: Any, context: Any) -> Any:
        import json

        from foundry_core.serving.frontends.announce import announcement

        answer = self._wire.MESSAGES["GetPolicyMetadataResponse"]()
        try:
            self._client(request, context)
            said = announcement(self._server)
            metadata = answer.policy_metadata
            metadata.name, metadata.skill_type = self._server.name, "any"
            metadata.checkpoint_path = self._server.name
            metadata.raw_policy_config = json.dumps(said, indent=1)  # JSON is YAML
            metadata.is_language_conditioned = self._server.reads_words
            for name, value in self._server.stats().items():
                metadata.runtime_information[name] = json.dumps(value)
            answer.success = True
        except Exception as error:
            self._refuse(request, context, error)
        return answer

    async def Check(self, request: Any, context: Any) -> Any:
        return self._wire.HEALTH_MESSAGES["HealthCheckResponse"](status=self._wire.SERVING)

    def _client(self, request: Any, context: Any) -> str:
        from foundry_core.serving.access import allowed

        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not allowed(str(given), self._front.token):
            raise FoundryError("the token is missing or wrong", "metadata: authorization: Bearer …")
        name = request.client_identifier
        if not 0 < len(name) <= 200 or not name.isprintable():
            raise FoundryError(f"client_identifier {name!r:.40} is none", "a UUID")
        return f"lbm/{name}"

    def _refuse(self, request: Any, context: Any, error: Exception) -> None:
        from foundry_core.serving.frontends.websocket import one_line

        text = one_line(error)
        self._server.complain(f"lbm/{request.client_identifier:.200}", text)
        printable = text.encode("ascii", "backslashreplace").decode()
        context.set_trailing_metadata(((REASON, printable),))

    def _fill(self, action: Any, targets: Mapping[str, Any], robot: Any) -> None:
        """The targets, with rotations as orthonormal matrices, and of every other robot what it is
        told already."""
        import numpy as np

        from foundry_core.data.robot.poses import decode_rot6d

        poses, grippers = set(), set()
        for name, value in targets.items():
            parts = name.split("__")
            if parts[-1] == "xyz":
                rows = np.asarray(targets[f"{name.removesuffix('xyz')}rot_6d"])
                self._wire.add_pose(action, parts[3], value, decode_rot6d(rows).ravel())
                poses.add(parts[3])
            elif parts[2] == "grippers":
                self._wire.add_gripper(action, parts[3], value[0])
                grippers.add(parts[3])
        for held in (robot.desired, robot.actual):
            for one in held.pose_status:
                if one.robot_name not in poses:
                    poses.add(one.robot_name)
                    action.pose_status.add(robot_name=one.robot_name).pose.CopyFrom(one.pose)
            for one in held.gripper_status:
                if one.gripper_name not in grippers:
                    grippers.add(one.gripper_name)
                    action.gripper_status.add().CopyFrom(one)
        for stamp in (action.timestamp_data, action.timestamp_sent, action.timestamp_received):
            stamp.sec = -1


def meaning(name: str, policy: FieldContract) -> FieldContract:
    """What a number of LBM Eval means; the frame is the one its data have."""
    one = canonical_field(name, policy.dims)
    if one.quantity == "gripper":
        return one.model_copy(update={"unit": "m", "dims": 1, "closed": 0.0, "open": OPEN_METRES})
    return one


def _add(listening: Any, service: str, method: str, request: Any, servicer: _Servicer) -> None:
    import grpc

    handler = grpc.unary_unary_rpc_method_handler(
        getattr(servicer, method),
        request_deserializer=request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    generic = grpc.method_handlers_generic_handler(service, {method: handler})
    listening.add_generic_rpc_handlers((generic,))


FRONTEND = Lbm
