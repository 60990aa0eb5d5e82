"""Keep-best and early stop, step by step."""

import pytest
from pydantic import ValidationError

from foundry_core.training.validation.config import BestRule
from foundry_core.training.validation.rules import Judge


def course(rule, values):
    """Step of the best one and where the run ends, after validations at steps 10, 20, ..."""
    judge = Judge(rule=rule)
    for number, value in enumerate(values, start=1):
        judge.judge(value, 10 * number)
        if judge.stop:
            return judge.step, 10 * number
    return judge.step, None


@pytest.mark.parametrize(
    ("changes", "values", "found"),
    [
        ({"patience": 2}, [3, 2, 2.5, 2.1, 1], (20, 40)),
        ({"patience": 3}, [3, 2, 2.5, 2.1, 1], (50, None)),
        ({"patience": 1, "better": "higher"}, [3, 4, 4], (20, 30)),
        ({"patience": 2, "least_gain": 0.5}, [3, 2.6, 2.4, 2.3, 2.2], (30, 50)),
        ({"patience": None}, [3, 2, 9, 9, 9], (20, None)),
        ({"patience": 2}, [float("nan"), 2, float("nan"), float("nan")], (20, 40)),
    ],
)
def test_course(changes, values, found):
    assert course(BestRule(measure="robot/loss", **changes), values) == found


def test_state_goes_on_where_it_was():
    rule = BestRule(measure="robot/loss", patience=2)
    judge = Judge(rule=rule)
    for step, value in ((10, 3.0), (20, 4.0)):
        judge.judge(value, step)
    again = Judge.restored(rule, judge.state())
    assert again == judge
    assert not again.judge(3.5, 30)
    assert again.stop


def test_a_rule_that_changes_nothing_is_refused():
    with pytest.raises(ValidationError, match="changes nothing"):
        BestRule(measure="robot/loss", keep=False)
