"""Run by a Python that has grpcio-tools: stubs that are generated here, from the .proto beside this
file, drive our server as LBM Eval does. Arguments: port, folder for the stubs, file for what
happened."""

import importlib
import json
import sys
import uuid
from pathlib import Path

import grpc
import numpy as np
from grpc_tools import protoc

port, folder, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
here = Path(__file__).parent
name = "lbm_policy_interface"
arguments = [f"-I{here}", f"--python_out={folder}", f"--grpc_python_out={folder}", f"{name}.proto"]
assert protoc.main(["protoc", *arguments]) == 0
sys.path.insert(0, folder)
pb = importlib.import_module(f"{name}_pb2")
stubs = importlib.import_module(f"{name}_pb2_grpc")


def observation(rng):
    seen = pb.MultiarmObservation(use_language_instruction=True, language_instruction="do 1")
    robot = seen.robot.actual.pose_status.add(robot_name="right::panda")
    robot.pose.translation.extend([0.1, 0.2, 0.3])
    robot.pose.rotation.extend([1, 0, 0, 0, 1, 0, 0, 0, 1])
    seen.robot.actual.gripper_status.add(gripper_name="right::panda_hand", gripper_position=0.05)
    for camera in ("front", "wrist"):
        image = seen.visuo.add(camera_serial=camera, has_rgb=True).camera_rgb.image
        image.height, image.width, image.channels = 16, 16, 3
        image.data = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8).tobytes()
    return seen


episodes = []
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    step = stubs.PolicyStepServiceStub(channel)
    reset = stubs.PolicyResetServiceStub(channel)
    for seed in (3, 3, 4):
        client, rng, actions = str(uuid.uuid4()), np.random.default_rng(0), []
        stranger = pb.PolicyStepRequest(client_identifier=client, observation=observation(rng))
        refused = step.PolicyStep(stranger).success
        assert reset.PolicyReset(pb.PolicyResetRequest(client_identifier=client, seed=seed)).success
        for _ in range(11):
            request = pb.PolicyStepRequest(client_identifier=client, observation=observation(rng))
            answer = step.PolicyStep(request)
            assert answer.success
            (pose,), (hand,) = answer.action.pose_status, answer.action.gripper_status
            assert (pose.robot_name, hand.gripper_name) == ("right::panda", "right::panda_hand")
            numbers = [*pose.pose.translation, *pose.pose.rotation, hand.gripper_position]
            actions.append(numbers)
        episodes.append(actions)
    asked = pb.GetPolicyMetadataRequest(client_identifier=client)
    metadata = stubs.GetPolicyMetadataServiceStub(channel).GetPolicyMetadata(asked).policy_metadata
found = {
    "episodes": episodes,
    "refused": not refused,
    "config": metadata.raw_policy_config,
    "runtime": sorted(metadata.runtime_information),
}
with open(out, "w") as file:
    json.dump(found, file)
