"""A policy's contract against an exam's: what is alike, what is converted, what is refused.

Only what has one right answer is converted: rotation forms, units, a gripper's ends, pictures by
the policy's own chain. Everything else that differs is an error that names both values.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from foundry_core.config.suggest import nearest
from foundry_core.data.contract.fields import UNITS, FieldContract
from foundry_core.data.contract.statements import CameraContract, ExamContract, PolicyContract
from foundry_core.errors import FoundryError

_HINT = "train on data of the exam's form, or examine another policy"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Of one field: `values` of the meaning `source` become such of `target`."""

    field: str
    source: FieldContract
    target: FieldContract

    def __str__(self) -> str:
        return f"{self.field}: {self.source.text()} → {self.target.text()}"


@dataclass(frozen=True, kw_only=True)
class Match:
    """observations: exam → policy; targets: policy → exam. absent: what the exam's robot lacks and
    the policy has learnt to do without. pictures: what becomes of them, one sentence each."""

    observations: tuple[Conversion, ...] = ()
    targets: tuple[Conversion, ...] = ()
    absent: frozenset[str] = frozenset()
    pictures: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """For the plan: one line per thing that is not passed on as it is."""
        lines = [*self.pictures, *map(str, self.observations), *map(str, self.targets)]
        if self.absent:
            lines.append(f"masked, the robot has none: {', '.join(sorted(self.absent))}")
        return lines


def match(policy: PolicyContract, exam: ExamContract, trained: str, examined: str) -> Match:
    """trained, examined: what messages call the two. FoundryError for the first difference that
    cannot be converted."""
    _check_rate(policy, exam, trained, examined)
    _check_steps(policy, trained)
    chains: dict[str, list[str]] = {}
    for name, camera in policy.cameras.items():
        chain = _picture(name, camera, policy, exam, trained, examined)
        if chain:
            chains.setdefault(chain, []).append(name)
    absent = _absent(policy, exam)
    return Match(
        observations=_conversions(policy.observes, exam.observes, absent, trained, examined, True),
        targets=_conversions(exam.commands, policy.commands, frozenset(), trained, examined, False),
        absent=absent,
        pictures=tuple(f"{', '.join(names)}: {chain}" for chain, names in chains.items()),
    )


def _check_rate(policy: PolicyContract, exam: ExamContract, trained: str, examined: str) -> None:
    if policy.hz is not None and exam.hz is not None and abs(policy.hz - exam.hz) > 1e-9:
        raise FoundryError(
            f"{trained} acts at {policy.hz:g} Hz, {examined} is controlled at {exam.hz:g} Hz",
            "train on data of the benchmark's rate",
        )


def _check_steps(policy: PolicyContract, trained: str) -> None:
    if policy.execute_steps > policy.ahead:
        raise FoundryError(
            f"execute_steps = {policy.execute_steps} exceeds the {policy.ahead} steps that "
            f"{trained} predicts",
            "lower execute_steps, or train with a larger data.robot.inputs.horizon",
        )


def _picture(
    name: str,
    trained_on: CameraContract,
    policy: PolicyContract,
    exam: ExamContract,
    trained: str,
    examined: str,
) -> str:
    """What happens to the exam's pictures of one camera; "" where nothing does."""
    if not exam.cameras:
        return ""
    if name not in exam.cameras:
        raise FoundryError(
            f"{trained} looks through camera {name!r}; {examined} shows "
            f"{', '.join(sorted(exam.cameras))}",
            nearest(name, exam.cameras),
        )
    shown = exam.cameras[name]
    if trained_on.renderer and shown.renderer and trained_on.renderer != shown.renderer:
        raise FoundryError(
            f"camera {name!r}: the pictures of {trained} are drawn by {trained_on.renderer}, those "
            f"of {examined} by {shown.renderer}",
            "set the evaluation's options.render to the demonstrations' render",
        )
    if shown.drawn is None or trained_on.drawn is None:
        return ""
    stored = trained_on.size
    if shown.drawn not in (trained_on.drawn, stored):
        raise FoundryError(
            f"camera {name!r}: the pictures of {trained} are drawn at {_size(trained_on.drawn)}, "
            f"those of {examined} at {_size(shown.drawn)}",
            "draw both at one size: a resized picture is another picture",
        )
    steps = [_size(shown.drawn)]
    if trained_on.rotated:
        steps.append(f"turned by {trained_on.rotated}°")
    if stored is not None and stored != shown.drawn:
        steps.append(f"{_size(stored)} ({trained_on.stored.method}, as its data)")
    if policy.image_size is not None and policy.image_size != stored:
        steps.append(f"{_size(policy.image_size)} (its own input)")
    return " → ".join(steps) if len(steps) > 1 else ""


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _absent(policy: PolicyContract, exam: ExamContract) -> frozenset[str]:
    """Commands that the exam does not take and some data of the policy did not have either, and
    with them what is measured of the same part of the robot."""
    if not exam.commands:
        return frozenset()
    commands = {name for name in policy.maskable if name not in exam.commands}
    parts = {_part(name) for name in commands}
    measured = {
        name for name in policy.observes if _part(name) in parts and name not in exam.observes
    }
    return frozenset(commands | measured)


def _part(name: str) -> str:
    """robot__action__poses__left::panda__xyz → poses__left::panda."""
    return "__".join(name.split("__")[2:4])


def _conversions(
    wanted: Mapping[str, FieldContract],
    given: Mapping[str, FieldContract],
    absent: frozenset[str],
    trained: str,
    examined: str,
    observed: bool,
) -> tuple[Conversion, ...]:
    """wanted: what the receiving side needs of the giving one. Both sides must name the fields."""
    if not given:
        return ()
    found = []
    for name, target in wanted.items():
        if name in absent:
            continue
        if name not in given:
            text = (
                f"{trained} observes {name!r}, which {examined} does not measure"
                if observed
                else f"{examined} takes {name!r}, which {trained} does not command"
            )
            raise FoundryError(text, nearest(name, given))
        source = given[name]
        difference = _difference(source, target)
        if difference:
            ours, theirs = (target, source) if observed else (source, target)
            raise FoundryError(
                f"{name!r}: {trained} has {ours.text()} ({ours.dims} values), {examined} "
                f"{theirs.text()} ({theirs.dims} values): {difference}",
                _HINT,
            )
        if _converts(source, target):
            found.append(Conversion(field=name, source=source, target=target))
    return tuple(found)


def _difference(a: FieldContract, b: FieldContract) -> str:
    """What no conversion bridges; "" where the two fit."""
    if a.quantity != b.quantity and "other" not in (a.quantity, b.quantity):
        return "not the same quantity"
    if a.frame and b.frame and a.frame != b.frame:
        return "not the same frame"
    if a.steps != b.steps:
        return "a change is no target"
    if a.unit and b.unit and UNITS[a.unit][0] != UNITS[b.unit][0]:
        return "not the same unit"
    if a.form is None and a.dims and b.dims and a.dims != b.dims:
        return "not the same size"
    return ""


def _converts(a: FieldContract, b: FieldContract) -> bool:
    units = bool(a.unit and b.unit and a.unit != b.unit)
    ends = a.open is not None and b.open is not None and (a.open, a.closed) != (b.open, b.closed)
    return a.form != b.form or units or ends
