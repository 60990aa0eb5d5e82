"""`foundry ablation ls|show|compare`: what past ablations found."""

import argparse

from flows.cli.commands.common import answer
from foundry_core.errors import FoundryError
from foundry_core.home import store_uri

_ACTIONS = {
    "ls": "all ablations: question, date, size, verdict, cost",
    "show": "the whole answer of one, in 80 columns",
    "compare": "two side by side: outcomes, settings, code, environment",
}
_REF = "an ablation's id, a part of it, or `latest`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in _ACTIONS.items():
        sub = actions.add_parser(name, help=summary, description=summary)
        sub.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON"
        )
        if name == "show":
            sub.add_argument("ref", help=_REF)
        if name == "compare":
            sub.add_argument("a", help=_REF)
            sub.add_argument("b", help=_REF)


def run(options: argparse.Namespace) -> int:
    from flows.ablation import answer_text, answers
    from flows.cli.commands.lineage import advanced
    from foundry_core.lineage import queries
    from foundry_core.lineage.events import EventLog
    from foundry_core.store.open import open_store

    store = open_store(store_uri())
    home = advanced(EventLog(store.events_uri))
    if home is None:
        raise FoundryError("nothing was run here yet", "`foundry ablate PIPELINE --vary PATH=V,V`")
    with queries.connect(home) as connection:
        if options.action == "ls":
            found = answers.listed(connection)
            return answer(options, found, answer_text.list_text(found).rstrip())
        if options.action == "show":
            one = answers.shown(connection, store, options.ref)
            return answer(options, one, answer_text.show_text(one).rstrip())
        two = answers.compared(connection, store, options.a, options.b)
        return answer(options, two, answer_text.compare_text(two).rstrip())
