"""The README fits a screen before the fold and quotes no figure that results.md lacks."""

import json
import re

from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
MEASURED = (REPOSITORY / "benchmarks" / "results.md").read_text(encoding="utf-8")
PROSE = re.sub(r"```.*?```", lambda block: block[0] if "make demo" in block[0] else "", README,
               flags=re.DOTALL)  # fmt: skip
_FIGURE = re.compile(r"(?<![\w.])\d[\d.,]*\s?(?:GB|MB|min|s|ms|%|×|x|hours?|h)\b")


def test_every_row_with_figures_is_a_measured_one():
    rows = [line for line in README.splitlines() if re.match(r"\|.*\d/\d", line)]
    assert rows and all(row in MEASURED for row in rows)


def test_every_figure_with_a_unit_is_a_measured_one():
    figures = set(_FIGURE.findall(PROSE))
    assert {"2.9 GB", "11 min"} <= figures
    assert {figure for figure in figures if figure not in MEASURED} == set()


def test_the_benchmarks_table_is_of_one_committed_run():
    section = README.partition("\n## Measured\n")[2].partition("\n## ")[0]
    (linked,) = re.findall(r"\]\((benchmarks/results/\w+)\.md\)", section)
    run = (REPOSITORY / f"{linked}.md").read_text(encoding="utf-8").splitlines()
    facts = json.loads((REPOSITORY / f"{linked}.json").read_text(encoding="utf-8"))
    assert facts["commit"] == linked.rpartition("/")[2]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert len(table) >= 2 + 6
    assert [line for line in table if line not in run] == []
    ratios = [float(line.split("|")[-2]) for line in table[2:]]
    assert min(ratios) < 1 < max(ratios), "where others are better is told, too"


def test_before_the_fold_stand_what_it_is_two_commands_their_cost_and_one_picture():
    above = README.partition("\n## ")[0]
    assert len(above.splitlines()) <= 25
    assert above.count("![") == 1
    assert re.findall(r"^make (\S+)", above, re.MULTILINE) == ["demo-fast", "demo"]
    assert "2.9 GB" in above and "11 min" in above


def test_it_is_short():
    assert len(README.splitlines()) <= 90
