"""Run by a Python that has megatron-energon: python energon_reads.py SHARDS OUT.json

SHARDS was prepared by `energon prepare`. Writes {key: {member: sha256}} of what its loader gives in
one epoch, undecoded."""

import hashlib
import json
import sys

from megatron.energon import (
    Cooker,
    CrudeSample,
    DefaultTaskEncoder,
    WorkerConfig,
    basic_sample_keys,
    get_loader,
    get_val_dataset,
    stateless,
)


@stateless
def as_it_is(sample: CrudeSample) -> CrudeSample:
    return CrudeSample({**basic_sample_keys(sample), **sample})


class Undecoded(DefaultTaskEncoder):
    decoder = None
    cookers = [Cooker(as_it_is)]


found = {}
dataset = get_val_dataset(
    sys.argv[1],
    split_part="train",
    batch_size=None,
    worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
    task_encoder=Undecoded(),
)
for sample in get_loader(dataset):
    found[sample["__key__"].rpartition("/")[2]] = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in sample.items()
        if isinstance(data, bytes)
    }
with open(sys.argv[2], "w") as out:
    json.dump(found, out)
