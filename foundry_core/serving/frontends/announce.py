"""What a front-end says of the policy at the handshake."""

from typing import TYPE_CHECKING, Any

from foundry_core.data.mapping.config import Part, PoseMapping, ValueMapping

if TYPE_CHECKING:
    from foundry_core.serving.mapping import ServingMapping
    from foundry_core.serving.server import PolicyServer

# Forms that have a name in vla-eval's specs; others are announced as raw.
_FORMS: dict[str, str] = {
    "axis_angle": "axis_angle",
    "euler_xyz": "euler_xyz",
    "quaternion_xyzw": "quaternion_xyzw",
    "rot6d_columns_interleaved": "rot6d_interleaved",
}
_DIMS = {"axis_angle": 3, "euler_xyz": 3, "quaternion_xyzw": 4, "rot6d_interleaved": 6}
_GRIPPERS = {
    (1.0, -1.0): "binary_close_positive",
    (-1.0, 1.0): "binary_close_negative",
    (0.0, 1.0): "continuous_01",
    (1.0, 0.0): "binary_close_01",
}


def announcement(server: "PolicyServer", mapping: "ServingMapping | None" = None) -> dict[str, Any]:
    """JSON: the contract, the rate, how many steps are carried out per chunk, whether a
    prompt tells it anything, and by which keys a client shows what the policy needs and reads what
    it commands.

    Of execute_steps there is one number, that of this server; its options and its mapping, which
    speaks of somebody else's policy, do not repeat theirs."""
    contract = server.contract.model_copy(update={"execute_steps": server.execute_steps})
    said: dict[str, Any] = {
        "name": server.name,
        "hz": contract.hz,
        "execute_steps": server.execute_steps,
        "reads_words": server.reads_words,
        "contract": contract.model_dump(mode="json"),
        "chunks": server.options.chunks.model_dump(mode="json", exclude={"execute_steps"}),
        "seed": server.options.seed,
    }
    if mapping is not None:
        # `plain` mappings are not validated: they are dumped as they are.
        said["mapping"] = mapping.model_dump(mode="json", warnings=False, exclude={"execute_steps"})
        said["actions"] = action_layout(server, mapping)
    return said


def action_layout(server: "PolicyServer", mapping: "ServingMapping") -> list[dict[str, Any]]:
    """[{field, first, end}] of an action's numbers, in their order."""
    found, at = [], 0
    for name, part in _parts(mapping):
        first, end = part.dims or (at, at + _size(server, name, part))
        found.append({"field": name, "first": first, "end": end})
        at = max(at, end)
    return sorted(found, key=lambda one: one["first"])


def specs(server: "PolicyServer", mapping: "ServingMapping") -> dict[str, Any]:
    """vla-eval's action_spec, in the order of an action's numbers, and observation_spec; only of
    what has a name there."""
    commanded = mapping.commanded
    named: dict[str, dict[str, Any]] = {}
    if len(commanded.poses) == 1:
        ((name, pose),) = commanded.poses.items()
        xyz = "delta_xyz" if pose.delta else "absolute_xyz"
        form = _FORMS.get(pose.rotation.form, "raw")
        named[f"{name}__xyz"] = _spec("position", 3, xyz)
        named[f"{name}__rot_6d"] = _spec("rotation", _DIMS.get(form, 0), form)
    grippers = {n: one for n, one in commanded.fields.items() if one.quantity == "gripper"}
    if len(grippers) == 1:
        ((name, gripper),) = grippers.items()
        named[name] = _spec("gripper", 1, _gripper(gripper))
    order = [part["field"] for part in action_layout(server, mapping)]
    actions = {named[field]["name"]: named[field] for field in order if field in named}
    seen = {"language": _spec("language", 0, "language")}
    for name in server.contract.cameras:
        if name in mapping.robot.cameras:
            key = mapping.robot.cameras[name].source.rpartition("/")[2]
            seen[key] = _spec("image", 0, "rgb_hwc_uint8")
    return {"action_spec": actions, "observation_spec": seen}


def _spec(name: str, dims: int, form: str) -> dict[str, Any]:
    return {"name": name, "dims": dims, "format": form}


def _gripper(one: ValueMapping) -> str:
    if one.closed is None or one.open is None:
        return "raw"
    return _GRIPPERS.get((one.closed, one.open), "raw")


def _parts(mapping: "ServingMapping") -> list[tuple[str, Part]]:
    poses: list[tuple[str, PoseMapping]] = list(mapping.commanded.poses.items())
    halves = [
        (f"{name}__{half}", part)
        for name, pose in poses
        for half, part in (("xyz", pose.xyz), ("rot_6d", pose.rotation))
    ]
    return [*halves, *mapping.commanded.fields.items()]


def _size(server: "PolicyServer", name: str, part: Part) -> int:
    field = server.contract.commands.get(name)
    return field.dims if field is not None else 0
