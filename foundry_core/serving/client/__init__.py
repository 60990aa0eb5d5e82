"""`foundry_client`: a policy that is served, from a robot's or a benchmark's side. NumPy and
websockets or grpc; neither torch nor the rest of Foundry.

    from foundry_core.serving.client import ChunkBroker, OpenPiClient

    with OpenPiClient("127.0.0.1", 8000) as policy:
        actions = ChunkBroker(policy, execute_steps=8)
        action = actions.step({"observation/image": picture, "prompt": "open the drawer"})
"""

from foundry_core.serving.client.broker import ChunkBroker
from foundry_core.serving.client.lbm import LbmClient
from foundry_core.serving.client.openpi import OpenPiClient
from foundry_core.serving.client.vla_eval import VlaEvalClient

__all__ = ["ChunkBroker", "LbmClient", "OpenPiClient", "VlaEvalClient"]
