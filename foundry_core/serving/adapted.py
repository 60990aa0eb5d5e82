"""A policy behind the contract of the exam or robot that it meets: what differs is converted."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foundry_core.data.contract.fields import UNITS, FieldContract
from foundry_core.data.contract.matching import Conversion, match
from foundry_core.data.contract.statements import ExamContract, PolicyContract
from foundry_core.data.robot.rotations import convert_rotation

if TYPE_CHECKING:
    from foundry_core.serving.policy import Policy


class Adapter:
    """What differs between a policy's contract and an exam's, both ways, for one request.

    absent: what the exam's robot lacks and the policy has learnt to do without. FoundryError names
    the first difference that cannot be converted. trained, examined: what it calls the two.
    """

    def __init__(
        self,
        contract: PolicyContract,
        exam: ExamContract,
        examined: str,
        trained: str = "the policy",
    ) -> None:
        self._match = match(contract, exam, trained, examined)
        self.absent = self._match.absent

    def observed(self, seen: Mapping[str, Any]) -> Mapping[str, Any]:
        """The exam's observation, and its history, as the policy measures it."""
        return _observed(seen, self._match.observations)

    def commanded(self, targets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The policy's targets {field: [..., D]} as the exam takes them."""
        return convert_fields(targets, self._match.targets)


class AdaptedPolicy:
    """The policy as the exam needs it: same calls, the exam's meanings on both sides. A policy that
    fits as it is passes through unchanged. FoundryError as of an Adapter."""

    def __init__(self, policy: "Policy", exam: ExamContract, examined: str) -> None:
        self._policy = policy
        self._adapter = Adapter(policy.contract, exam, examined)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def infer(
        self, requests: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> list[dict[str, np.ndarray]]:
        """As Policy.infer."""
        adapter = self._adapter
        answers = self._policy.infer(
            [(client, adapter.observed(seen)) for client, seen in requests], adapter.absent
        )
        return [adapter.commanded(answer) for answer in answers]


def _observed(seen: Mapping[str, Any], conversions: Sequence[Conversion]) -> Mapping[str, Any]:
    if not conversions:
        return seen
    history = [_observed(past, conversions) for past in seen.get("history", ())]
    lowdim = convert_fields(seen["lowdim"], conversions)
    return {**seen, "lowdim": lowdim, **({"history": history} if history else {})}


def convert_fields(
    fields: Mapping[str, np.ndarray], conversions: Iterable[Conversion]
) -> dict[str, np.ndarray]:
    """{field: [..., D]} with the conversions applied; others as they are."""
    out = dict(fields)
    for one in conversions:
        if one.field in out:
            out[one.field] = _converted(np.asarray(out[one.field], np.float64), one)
    return out


def _converted(values: np.ndarray, one: Conversion) -> np.ndarray:
    source, target = one.source, one.target
    if source.form is not None and target.form is not None and source.form != target.form:
        # Only forms of angles have a unit; without one they are radians.
        turned = convert_rotation(values * _si(source), source.form, target.form)
        return turned / _si(target)
    if (
        source.open is not None
        and source.closed is not None
        and target.open is not None
        and target.closed is not None
    ):
        share = (values - source.closed) / (source.open - source.closed)
        return target.closed + share * (target.open - target.closed)
    return values * (_si(source) / _si(target))


def _si(field: FieldContract) -> float:
    return UNITS[field.unit][1] if field.unit else 1.0
