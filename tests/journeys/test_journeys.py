"""Every data set that an original tool wrote, end to end (benchmarks/formats.py prints it)."""

from dataclasses import replace

import pytest

from foundry_core.parallel import ray_session
from tests.journeys.robot import JOURNEYS, Travel, simulator
from tests.journeys.words import CAPTIONS, TEXTS, CaptionTravel, TextTravel
from tests.real_data import ABSENT, FORMATS
from tests.tasks.training_stages import run_stage

real = pytest.mark.skipif(not FORMATS.is_dir(), reason=ABSENT)
DEMOS = {
    "tasks": ["drawer-open-v3"],
    "episodes_per_task": 2,
    "render": {"size": 32, "supersample": 1},
}
DRAFTED = sorted(name for name, one in JOURNEYS.items() if one.mapping != "")


@pytest.fixture(scope="module")
def ray():
    """One for all conversions of the module."""
    with ray_session(1):
        yield


@real
def test_no_data_set_is_overlooked():
    there = {folder.name for folder in FORMATS.iterdir() if folder.is_dir()}
    assert there <= {*JOURNEYS, *TEXTS, *CAPTIONS}


@real
@pytest.mark.slow("from raw data to a trained model and back")
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("name", JOURNEYS)
def test_a_robot_data_set_arrives(name, tmp_path):
    travel = Travel(JOURNEYS[name], tmp_path)
    for stretch in (travel.read, travel.map, travel.convert, travel.train, travel.export):
        assert stretch()


@pytest.mark.slow("from raw data to a trained model and back")
@pytest.mark.usefixtures("ray")
def test_what_the_simulator_records_arrives(tmp_path):
    from tasks.collect_demos import CollectDemos

    run_stage(CollectDemos, tmp_path / "demos", tmp_path / "scratch", DEMOS, {})
    travel = Travel(simulator(tmp_path / "demos"), tmp_path)
    for stretch in (travel.read, travel.map, travel.convert, travel.train, travel.export):
        assert stretch()


@real
@pytest.mark.slow("from raw data to a trained model and back")
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("name", [*TEXTS, *CAPTIONS])
def test_texts_and_captions_arrive(name, tmp_path):
    travel = (TextTravel if name in TEXTS else CaptionTravel)(name, tmp_path)
    for stretch in (travel.read, travel.convert, travel.train):
        assert stretch()


@real
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("name", DRAFTED)
def test_the_draft_of_data_inspect_converts(name, tmp_path):
    """Without edits, but for the instruction that its comment asks for."""
    travel = Travel(replace(JOURNEYS[name], mapping=None), tmp_path)
    for stretch in (travel.read, travel.map, travel.convert):
        assert stretch()
