"""Raw sources → shards: what the convert_* stages run, on any number of workers."""
