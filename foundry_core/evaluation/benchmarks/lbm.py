"""TRI's LBM Eval: bimanual tasks in Drake at 10 Hz, played by its own program, which users install.

It comes to a server of ours for actions (serving/frontends/lbm.py) and writes down what became of
each episode. What starts an episode and its seed is LBM Eval's: scenario n is its scenario n. Its
step limits are its own, and whether it solved a task counts at any time.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from foundry_core.data.contract.fields import FieldContract
from foundry_core.evaluation.benchmarks.base import BenchmarkTask, DrivenBenchmark
from foundry_core.evaluation.lbm_eval.installation import find_installation
from foundry_core.serving.frontends.lbm import meaning

_CAMERAS = (
    "scene_left_0",
    "scene_right_0",
    "wrist_left_minus",
    "wrist_left_plus",
    "wrist_right_minus",
    "wrist_right_plus",
)
_POSES = {"xyz": 3, "rot_6d": 6}
_JOINTS = ("joint_position", "joint_velocity", "joint_torque", "joint_torque_external")
_WRENCHES = ("wrench", "external_wrench")
# What its stations offer; the first 19 have published results, 3 of them no demonstrations.
_PUBLISHED = (
    "bimanual_place_apple_from_bowl_into_bin",
    "bimanual_place_fruit_from_bowl_into_bin",
    "bimanual_put_red_bell_pepper_in_bin",
    "bimanual_put_spatula_on_plate_from_drying_rack",
    "bimanual_put_spatula_on_plate_from_table",
    "bimanual_stack_plates_on_table_from_drying_rack",
    "bimanual_store_cereal_box_under_shelf",
    "place_cup_by_coaster",
    "push_coaster_to_center_of_table",
    "push_coaster_to_mug",
    "put_banana_on_saucer",
    "put_kiwi_in_center_of_table",
    "put_mug_on_saucer",
    "put_spatula_in_utensil_crock",
    "turn_cup_upside_down",
    "turn_mug_rightside_up",
)
_UNSEEN = (
    "bimanual_place_avocado_from_bowl_into_bin",
    "bimanual_put_spatula_on_plate_from_utensil_crock",
    "put_mug_in_center_of_table",
)
_OTHERS = (
    "bimanual_hang_mugs_on_mug_holder_from_drying_rack",
    "bimanual_hang_mugs_on_mug_holder_from_table",
    "bimanual_lay_cereal_box_on_cutting_board_from_top_shelf",
    "bimanual_lay_cereal_box_on_cutting_board_from_under_shelf",
    "bimanual_place_apple_from_bowl_on_cutting_board",
    "bimanual_place_avocado_from_bowl_on_cutting_board",
    "bimanual_place_fruit_from_bowl_on_cutting_board",
    "bimanual_place_pear_from_bowl_into_bin",
    "bimanual_place_pear_from_bowl_on_cutting_board",
    "bimanual_put_mugs_on_plates_from_drying_rack",
    "bimanual_put_mugs_on_plates_from_table",
    "bimanual_put_spatula_on_table_from_drying_rack",
    "bimanual_put_spatula_on_table_from_utensil_crock",
    "bimanual_stack_plates_on_table_from_table",
    "dump_vegetables_from_small_to_large_container",
    "pick_and_place_box",
    "place_cup_on_coaster",
    "put_banana_in_center_of_table",
    "put_containers_on_plate",
    "put_cup_in_center_of_table",
    "put_cup_on_saucer",
    "put_fruit_in_large_container_and_cover_with_plate",
    "put_green_apple_in_center_of_table",
    "put_green_apple_on_saucer",
    "put_kiwi_on_saucer",
    "put_orange_in_center_of_table",
    "put_orange_on_saucer",
    "put_spatula_in_utensil_crock_from_drying_rack",
    "separate_fruits_vegetables_into_containers",
    "turn_large_container_upside_down",
)
_SETS = {"published": _PUBLISHED, "unseen": _UNSEEN, "all": (*_PUBLISHED, *_UNSEEN, *_OTHERS)}


class LbmEval(DrivenBenchmark):
    """LBM Eval, installed beside Foundry."""

    name: ClassVar[str] = "lbm"
    hz: ClassVar[float] = 10.0

    task_set: Literal["published", "unseen", "all"] = Field(
        "published",
        description="what is played where no tasks are named: the 16 that published results are "
        "averaged over, the 3 without demonstrations, or all 49",
    )
    success: Literal["ever"] = Field(
        "ever", description="an episode counts as solved once its predicate holds"
    )

    def tasks(self) -> Mapping[str, BenchmarkTask]:
        return {
            name: BenchmarkTask(name=name, instruction=name.replace("_", " "), max_steps=None)
            for name in _SETS["all"]
        }

    def default_tasks(self) -> tuple[str, ...]:
        return _SETS[self.task_set]

    def cameras(self) -> tuple[str, ...]:
        return _CAMERAS

    @property
    def observes(self) -> Mapping[str, FieldContract]:  # type: ignore[override]
        """Of both arms, where they are and where they were told to be. Commands are left open: an
        arm that a policy does not command holds."""
        found: dict[str, FieldContract] = {}
        for state in ("actual", "desired"):
            for arm in ("right::panda", "left::panda"):
                start = f"robot__{state}__"
                sizes = {f"{start}poses__{arm}__{part}": dims for part, dims in _POSES.items()}
                sizes |= {f"{start}{name}__{arm}": 0 for name in (*_JOINTS, *_WRENCHES)}
                sizes[f"{start}grippers__{arm}_hand"] = 1
                found |= {n: meaning(n, FieldContract(dims=dims)) for n, dims in sizes.items()}
        return found

    def fingerprints(self) -> Mapping[str, str]:
        return {"lbm_eval": find_installation().fingerprint()}

    def versions(self) -> Mapping[str, str]:
        return find_installation().versions()

    def drive(
        self,
        policy: Any,
        plans: Sequence[Any],
        *,
        seed: int,
        processes: int,
        execute_steps: int | None,
        scratch: Path,
        on_rollout: Callable[[Any], None],
    ) -> None:
        from foundry_core.evaluation.lbm_eval.drive import Drive
        from foundry_core.evaluation.lbm_eval.served import ServedForLbm

        with ServedForLbm(policy, self.contract(), seed, execute_steps) as served:
            Drive(
                find_installation(), served, plans, processes, scratch / "lbm_eval", on_rollout
            ).run()


BENCHMARK = LbmEval
