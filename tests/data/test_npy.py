"""The fast .npy/.npz reader against NumPy's."""

import io

import numpy as np
import pytest

from foundry_core.data.npy import read_npy, read_npz
from foundry_core.errors import FoundryError

ARRAYS = {
    "f": np.arange(12.0).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
    "scalar": np.array(3.5, dtype=np.float32),
    "empty": np.zeros((0, 5), dtype=np.uint16),
    "text": np.array(["a", "bc"]),
    "flags": np.array([True, False]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_array_as_numpy_reads_it(save) -> None:
    buffer = io.BytesIO()
    save(buffer, **ARRAYS)
    read = read_npz(memoryview(buffer.getvalue()))
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    assert list(read_npz(buffer.getvalue(), {"flags", "absent"})) == ["flags"]


def test_damage_and_pickles_are_refused() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **ARRAYS)
    data = buffer.getvalue()
    for cut in range(0, len(data), 97):
        with pytest.raises(FoundryError):
            read_npz(data[:cut])
    npy = io.BytesIO()
    np.save(npy, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FoundryError, match="pickled"):
        read_npy(npy.getvalue())
    whole = io.BytesIO()
    np.save(whole, np.arange(10))
    with pytest.raises(FoundryError, match="truncated"):
        read_npy(whole.getvalue()[:-1])
    with pytest.raises(FoundryError, match=r"not a \.npy"):
        read_npy(b"hello, world")
