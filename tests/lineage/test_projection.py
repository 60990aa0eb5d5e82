"""Events and the tables made of them name the same fields."""

from dataclasses import fields

import pytest

from foundry_core.lineage import event_types
from foundry_core.lineage.event_types import Event, PlannedInput, PlannedStage
from foundry_core.lineage.projection import PROJECTIONS

EVENTS = {kind.type: kind for kind in Event.__subclasses__()}


def names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda projection: projection.table)
def test_a_projection_reads_fields_that_its_event_has(projection):
    assert projection.structure.keys() <= names(EVENTS[projection.event])


def test_every_event_is_projected():
    assert {projection.event for projection in PROJECTIONS} == EVENTS.keys()


def test_planned_stages_are_read_as_they_are_written():
    (started,) = [one for one in PROJECTIONS if one.event == event_types.RunStarted.type]
    (stage,) = started.structure["stages"]
    assert stage.keys() == names(PlannedStage)
    assert stage["inputs"][0].keys() == names(PlannedInput)
