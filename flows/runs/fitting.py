"""Whether what a plan runs can start where it would, asked while nothing has started yet."""

from dataclasses import replace

from flows.dispatch.base import Backend, make_backend
from flows.dispatch.slots import cpus_of, here
from flows.runs.planning import Prepared
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Resources


def fitted(prepared: Prepared, dispatch: str) -> Prepared:
    """The same with notes on the stages that will wait, or get less than they ask for. FoundryError
    for one that can never start there. What cannot be asked from here is a note: somebody may plan
    on a laptop what a cluster will run."""
    nodes = prepared.pipeline.stages
    demanding = {
        row.name: nodes[row.name].resources
        for row in prepared.plan.to_run()
        if _is_demanding(nodes[row.name].resources)
    }
    if not demanding:  # most plans: no backend is imported
        return prepared
    backend = _reached(dispatch)
    rows = dict(prepared.plan.stages)
    for name, resources in demanding.items():
        if isinstance(backend, Backend):
            backend.check(name, resources)
            notes = backend.notes(name, resources)
        else:
            notes = (f"not known here whether {dispatch} can run it: {backend.message}",)
        rows[name] = replace(rows[name], notes=(*rows[name].notes, *notes))
    return replace(prepared, plan=replace(prepared.plan, stages=rows))


def _is_demanding(resources: Resources) -> bool:
    return resources.gpus > 0 or cpus_of(resources) > here()


def _reached(dispatch: str) -> Backend | FoundryError:
    try:
        return make_backend(dispatch)
    except FoundryError as error:
        return error
