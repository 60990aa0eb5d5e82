"""A comparison as rows of text, for a terminal, for Markdown, CSV and the report."""

import csv
import io

from rich.table import Table

from foundry_core.evaluation.comparison.controls import control_columns, over_all_tasks
from foundry_core.evaluation.comparison.result import Comparison
from foundry_core.evaluation.comparison.sentences import p_text
from foundry_core.evaluation.comparison.verdict import decision_text
from foundry_core.evaluation.score import Score


def score_text(score: Score | None) -> str:
    """'17/20  85 % [62, 97]': a rate never stands without its count and interval."""
    if score is None:
        return "not evaluated"
    more = [f"{score.crashed} crashed"] * (score.crashed > 0)
    more += [f"{score.pending} pending"] * (score.pending > 0)
    if score.rate is None:
        return ", ".join(["no episodes", *more])
    low, high = score.interval
    text = (
        f"{score.successes}/{score.n}  {100 * score.rate:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    )
    return ", ".join([text, *more])


def rows(comparison: Comparison) -> list[list[str]]:
    """Header and rows: every task, all together, what each label's difference to the base says.
    Controls come last and have scores alone."""
    labels, overall = comparison.labels, comparison.overall
    controls = control_columns(comparison)
    body = []
    for task in [*comparison.tasks, *comparison.missing]:
        scores = comparison.scores[task]
        left_out = " (not compared)" if task in comparison.missing else ""
        shown = [scores.get(label) for label in labels]
        shown += [of_control.get(task) for of_control in controls.values()]
        body.append([task + left_out, *map(score_text, shown)])
    whole = [overall[label].counted for label in labels]
    whole += [over_all_tasks(comparison, of_control) for of_control in controls.values()]
    body.append(["all tasks", *map(score_text, whole)])
    if any(_uneven(comparison, label) for label in labels):
        rates = [overall[label].rate for label in labels]
        even = ["-" if rate is None else f"{100 * rate:.1f} %" for rate in rates]
        body.append(["mean of the tasks' rates", *even])
    if comparison.base is not None:
        found = [comparison.against_base(label) for label in labels]
        family = f"p against {comparison.base} (exact, Holm over {comparison.size})"
        body.append(
            [family, *("base" if one is None else p_text(one.p_corrected) for one in found)]
        )
        body.append(
            [
                "decision",
                *("" if one is None else decision_text(one.decision, one.basis) for one in found),
            ]
        )
    letters = "letters (shared = not separated)"
    if comparison.family == "base" and len(labels) > 2:
        letters = "letters (shared = not separated, or not compared)"
    body.append([letters, *(comparison.letters[label] for label in labels)])
    header = ["task", *labels, *controls]
    return [header, *(row + [""] * (len(header) - len(row)) for row in body)]


def _uneven(comparison: Comparison, label: str) -> bool:
    overall = comparison.overall[label]
    counted = overall.counted.rate
    return counted is not None and overall.rate is not None and abs(counted - overall.rate) > 5e-4


def comparison_table(comparison: Comparison) -> Table:
    """`rows` for a terminal."""
    header, *body = rows(comparison)
    title = f"{comparison.criterion or 'success as recorded'}, 95 % Clopper-Pearson intervals"
    table = Table(title=title, title_justify="left")
    for column in header:
        table.add_column(column, overflow="fold")
    last = len(comparison.tasks) + len(comparison.missing) - 1
    for number, row in enumerate(body):
        table.add_row(*row, end_section=number == last)
    return table


def markdown(comparison: Comparison) -> str:
    """`rows` as a Markdown table, then when an episode counts as solved."""
    header, *body = rows(comparison)
    lines = [header, ["---"] * len(header), *body]
    table = "".join(f"| {' | '.join(row)} |\n" for row in lines)
    return table + (f"\nRates: {comparison.criterion}.\n" if comparison.criterion else "")


def as_csv(comparison: Comparison) -> str:
    """One line per task and label, and per label over all tasks (task ''). Controls, which have no
    letters, come last."""
    text = io.StringIO(newline="")
    names = ("task", "label", "n", "successes", "crashed", "pending", "rate", "low", "high")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "letters"])
    for task, scores in comparison.scores.items():
        for label, score in scores.items():
            row = score.to_json()
            writer.writerow([task, label, *(row[name] for name in names[2:]), ""])
    for label, overall in comparison.overall.items():
        row = overall.counted.to_json() | {"rate": overall.rate}
        writer.writerow(["", label, *(row[name] for name in names[2:]), comparison.letters[label]])
    for column, of_control in control_columns(comparison).items():
        for task, score in {**of_control, "": over_all_tasks(comparison, of_control)}.items():
            row = score.to_json()
            writer.writerow([task, column, *(row[name] for name in names[2:]), ""])
    return text.getvalue()
