"""A client of LBM Eval's policy interface."""

import uuid
from collections.abc import Mapping
from typing import Any, Self

from foundry_core.errors import FoundryError
from foundry_core.serving.client.socket import ANSWER_SECONDS
from foundry_core.serving.wire import MESSAGE_BYTES, lbm

_REASON = "foundry-error"


class LbmClient:
    """client: its identifier; a new one by default, as one per episode is usual."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        client: str = "",
        token: str = "",
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        import grpc

        self.client = client or str(uuid.uuid4())
        self._seconds = seconds
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        options = [
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel = grpc.insecure_channel(f"{host}:{port}", options=options)
        self._calls = {
            method: self._channel.unary_unary(
                f"/{lbm.PACKAGE}.{service}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=lbm.MESSAGES[response].FromString,
            )
            for method, (service, _, response) in lbm.SERVICES.items()
        }

    def reset(self, seed: int) -> None:
        request = lbm.MESSAGES["PolicyResetRequest"](client_identifier=self.client, seed=seed)
        self._call("PolicyReset", request)

    def step(self, observation: Mapping[str, Any]) -> Any:
        """observation: {images, lowdim, instruction} by LBM's names → a PosesAndGrippers."""
        request = lbm.MESSAGES["PolicyStepRequest"](client_identifier=self.client)
        lbm.fill_observation(request.observation, observation)
        return self._call("PolicyStep", request).action

    def metadata(self) -> Any:
        """The server's PolicyMetadata."""
        request = lbm.MESSAGES["GetPolicyMetadataRequest"](client_identifier=self.client)
        return self._call("GetPolicyMetadata", request).policy_metadata

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: str, request: Any) -> Any:
        import grpc

        try:
            answer, call = self._calls[method].with_call(
                request, timeout=self._seconds, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise FoundryError(f"{method}: {error.code().name}: {error.details()}") from None
        if not answer.success:
            reason = dict(call.trailing_metadata() or ()).get(_REASON, "no reason given")
            raise FoundryError(f"{method}: the server refuses: {reason}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
