"""The messages of package lbm_policy_interface, as TRI's LBM Eval speaks them, and of gRPC's health
service, made from one table when this is imported. NumPy and protobuf only.

Fields of a message are `name type` in the order of their numbers, from 1 on; a type is a scalar of
protobuf or a message of the table, `*` before it: repeated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from foundry_core.errors import FoundryError

PACKAGE = "lbm_policy_interface"
HEALTH = "grpc.health.v1"
SERVING = 1
_MESSAGES = {
    "Time": "sec int32, nanosec uint32",
    "Header": "stamp Time",
    "Image": "height int32, width int32, channels int32, data bytes, dtype ImageDtype, "
    "compression ImageCompression",
    "CameraInfo": "height int32, width int32, distortion_model string, k *float, header Header",
    "RigidTransform": "translation *double, rotation *double",
    "CameraImage": "image Image, info CameraInfo, pose RigidTransform",
    "CameraImageSet": "camera_serial string, has_rgb bool, has_depth bool, has_label bool, "
    "camera_rgb CameraImage, camera_depth CameraImage, camera_label CameraImage",
    "RobotPoseStatus": "robot_name string, pose RigidTransform, wrench *double, "
    "external_wrench *double, joint_position *double, joint_velocity *double, "
    "joint_torque *double, joint_torque_external *double",
    "RobotGripperStatus": "gripper_name string, gripper_position double",
    "PosesAndGrippers": "pose_status *RobotPoseStatus, gripper_status *RobotGripperStatus, "
    "timestamp_data Time, timestamp_sent Time, timestamp_received Time",
    "PosesAndGrippersActualAndDesired": "actual PosesAndGrippers, desired PosesAndGrippers, "
    "version double",
    "MultiarmObservation": "robot PosesAndGrippersActualAndDesired, visuo *CameraImageSet, "
    "version double, use_language_instruction bool, language_instruction string",
    "PolicyResetRequest": "client_identifier string, seed uint32",
    "PolicyResetResponse": "success bool",
    "PolicyStepRequest": "client_identifier string, observation MultiarmObservation",
    "PolicyStepResponse": "success bool, action PosesAndGrippers",
    "PolicyMetadata": "name string, skill_type string, checkpoint_path string, git_repo string, "
    "git_sha string, raw_policy_config string, is_language_conditioned bool, "
    "runtime_information map",
    "GetPolicyMetadataRequest": "client_identifier string",
    "GetPolicyMetadataResponse": "success bool, policy_metadata PolicyMetadata",
}
_ENUMS = {
    "ImageDtype": ("DTYPE_UINT8", "DTYPE_INT8", "DTYPE_UINT16", "DTYPE_INT16"),
    "ImageCompression": ("NONE", "JPG", "PNG"),
}
_HEALTH_MESSAGES = {
    "HealthCheckRequest": "service string",
    "HealthCheckResponse": "status ServingStatus",
}
_HEALTH_ENUMS = {"ServingStatus": ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")}
SERVICES = {
    "PolicyReset": ("PolicyResetService", "PolicyResetRequest", "PolicyResetResponse"),
    "PolicyStep": ("PolicyStepService", "PolicyStepRequest", "PolicyStepResponse"),
    "GetPolicyMetadata": (
        "GetPolicyMetadataService",
        "GetPolicyMetadataRequest",
        "GetPolicyMetadataResponse",
    ),
}
"""Method → its service, request and response."""
_DTYPES = (np.uint8, np.int8, np.uint16, np.int16)
_NONE, _JPG, _PNG = range(3)
_MOST_SIDE = 1 << 14

_Field = descriptor_pb2.FieldDescriptorProto


def _made(package: str, messages: Mapping[str, str], enums: Mapping[str, tuple[str, ...]]) -> Any:
    """name → class, of a pool of its own: another copy of the same messages does no harm."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", syntax="proto3")
    file.package = package
    for name, values in enums.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, text in enumerate(fields.split(", "), 1):
            field, _, kind = text.partition(" ")
            _add_field(message, f".{package}", field, number, kind, enums)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = message_factory.GetMessageClassesForFiles([file.name], pool)
    return {name: found[f"{package}.{name}"] for name in messages}


def _add_field(
    message: Any, scope: str, name: str, number: int, kind: str, enums: Mapping[str, Any]
) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind.startswith("*"):
        field.label, kind = _Field.LABEL_REPEATED, kind[1:]
    if kind == "map":  # a repeated message of its own, in protobuf's wire form
        entry = message.nested_type.add(name="RuntimeInformationEntry")
        entry.options.map_entry = True
        _add_field(entry, scope, "key", 1, "string", enums)
        _add_field(entry, scope, "value", 2, "string", enums)
        field.label, field.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
        field.type_name = f"{scope}.{message.name}.{entry.name}"
    elif kind in enums:
        field.type, field.type_name = _Field.TYPE_ENUM, f"{scope}.{kind}"
    elif kind[0].isupper():
        field.type, field.type_name = _Field.TYPE_MESSAGE, f"{scope}.{kind}"
    else:
        field.type = getattr(_Field, f"TYPE_{kind.upper()}")


MESSAGES = _made(PACKAGE, _MESSAGES, _ENUMS)
HEALTH_MESSAGES = _made(HEALTH, _HEALTH_MESSAGES, _HEALTH_ENUMS)


def observation_of(message: Any) -> dict[str, Any]:
    """A MultiarmObservation as {images, lowdim, instruction}, in the names of LBM's data:
    robot__actual__poses__right::panda__xyz [3], .. __rot_6d [6] (two rows), robot__actual__
    grippers__.. [1], robot__actual__joint_position__.. and the like. FoundryError for a picture or
    a vector that is none."""
    images = {}
    for one in message.visuo:
        if one.has_rgb:
            images[one.camera_serial] = _picture(one.camera_rgb.image, one.camera_serial)
    lowdim: dict[str, np.ndarray] = {}
    for kind in ("actual", "desired"):
        lowdim |= _fields(getattr(message.robot, kind), f"robot__{kind}")
    text = message.language_instruction if message.use_language_instruction else ""
    return {"images": images, "lowdim": lowdim, "instruction": text}


def _fields(status: Any, prefix: str) -> dict[str, np.ndarray]:
    found = {}
    for robot in status.pose_status:
        if robot.HasField("pose"):
            pose = f"{prefix}__poses__{robot.robot_name}"
            found[f"{pose}__xyz"] = _vector(robot.pose.translation, 3, f"{pose} translation")
            rows = _vector(robot.pose.rotation, 9, f"{pose} rotation")
            found[f"{pose}__rot_6d"] = rows[:6]
        for what in (
            "wrench",
            "external_wrench",
            "joint_position",
            "joint_velocity",
            "joint_torque",
            "joint_torque_external",
        ):
            if values := getattr(robot, what):
                found[f"{prefix}__{what}__{robot.robot_name}"] = np.array(values, np.float64)
    for gripper in status.gripper_status:
        name = f"{prefix}__grippers__{gripper.gripper_name}"
        found[name] = np.array([gripper.gripper_position], np.float64)
    return found


def _vector(values: Any, size: int, name: str) -> np.ndarray:
    if len(values) != size:
        raise FoundryError(f"{name} has {len(values)} numbers, not {size}")
    return np.array(values, np.float64)


def _picture(image: Any, camera: str) -> np.ndarray:
    """uint8 [H, W, 3]; sizes are checked before anything is decoded."""
    shape = (image.height, image.width, image.channels)
    if not all(0 < n <= _MOST_SIDE for n in shape):
        raise FoundryError(f"camera {camera!r}: a picture of {list(shape)}")
    if image.compression in (_JPG, _PNG):
        from foundry_core.data.images import decode_image

        picture = decode_image(image.data, f"camera {camera!r}")
        if picture.shape != shape:
            raise FoundryError(
                f"camera {camera!r} says {list(shape)} and shows {list(picture.shape)}"
            )
        return picture
    if image.compression != _NONE or not 0 <= image.dtype < len(_DTYPES):
        raise FoundryError(
            f"camera {camera!r}: compression {image.compression}, dtype {image.dtype} is unknown"
        )
    dtype = np.dtype(_DTYPES[image.dtype])
    size = shape[0] * shape[1] * shape[2] * dtype.itemsize
    if size != len(image.data):
        raise FoundryError(
            f"camera {camera!r}: {list(shape)} of {dtype} has {size} bytes, {len(image.data)} came"
        )
    return np.frombuffer(image.data, dtype).reshape(shape)


def fill_observation(message: Any, observation: Any) -> None:
    """The way back: what a client that has {images, lowdim, instruction} sends. Only poses, joint
    positions and grippers."""
    robot = {"actual": message.robot.actual, "desired": message.robot.desired}
    lowdim = observation["lowdim"]
    for name in lowdim:
        parts = name.split("__")
        if len(parts) == 5 and parts[2] == "poses" and parts[4] == "xyz":
            rows = np.asarray(lowdim[f"{name.removesuffix('xyz')}rot_6d"], np.float64)
            rotation = np.concatenate([rows, np.cross(rows[:3], rows[3:])])
            add_pose(robot[parts[1]], parts[3], lowdim[name], rotation)
        elif len(parts) == 4 and parts[2] == "grippers":
            add_gripper(robot[parts[1]], parts[3], lowdim[name][0])
    for camera, picture in observation["images"].items():
        one = message.visuo.add(camera_serial=camera, has_rgb=True)
        image = one.camera_rgb.image
        image.height, image.width, image.channels = picture.shape
        image.data = np.ascontiguousarray(picture).tobytes()
    message.use_language_instruction = True
    message.language_instruction = observation["instruction"]


def add_pose(status: Any, robot: str, xyz: Any, rotation: Any) -> None:
    """xyz [3], rotation [9] row-major, into a PosesAndGrippers."""
    one = status.pose_status.add(robot_name=robot)
    one.pose.translation.extend(map(float, xyz))
    one.pose.rotation.extend(map(float, rotation))


def add_gripper(status: Any, gripper: str, position: float) -> None:
    status.gripper_status.add(gripper_name=gripper, gripper_position=float(position))
