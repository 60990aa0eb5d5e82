"""Opens the store that an address names."""

from foundry_core.store.base import Store
from foundry_core.store.local import LocalStore


def open_store(uri: str) -> Store:
    """The store at a path (the first write makes it) or at s3://bucket/prefix. FoundryError when
    it cannot be used."""
    if "://" not in uri:
        return LocalStore.open(uri)
    from foundry_core.store.s3 import S3Store

    return S3Store.open(uri)
