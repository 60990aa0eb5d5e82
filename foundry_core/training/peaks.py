"""What devices could do at most. No torch."""

from collections.abc import Mapping

# Name of a device, the more special ones first → dense bf16 TFLOP/s that its maker states.
PEAKS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H200": 989,
    "GH200": 989,
    "B200": 2250,
    "A100": 312,
    "A30": 165,
    "A40": 149.7,
    "A10": 125,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "MI300X": 1307,
}
# What GPU hours are told for where nobody says otherwise; the share of its peak that is reached.
GPU, MFU = "H100", 0.4

# The same → TB/s of its memory.
BANDWIDTHS = {
    "H100 PCIe": 2.0,
    "H100 NVL": 3.9,
    "H100": 3.35,
    "H200": 4.8,
    "GH200": 4.0,
    "B200": 8.0,
    "A100 80GB": 2.04,
    "A100": 1.56,
    "A30": 0.93,
    "A40": 0.70,
    "A10": 0.60,
    "L40S": 0.86,
    "L40": 0.86,
    "L4": 0.30,
    "MI300X": 5.3,
}


def peak_of(name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by its name; None for one that the table lacks."""
    return _tera(PEAKS, name)


def bandwidth_of(name: str) -> float | None:
    """Bytes/s of a device's memory; None for one that the table lacks."""
    return _tera(BANDWIDTHS, name)


def _tera(table: Mapping[str, float], name: str) -> float | None:
    """1e12 times the value of the first entry whose words are all in the name."""
    words = set(name.replace("-", " ").split())
    return next((1e12 * v for known, v in table.items() if set(known.split()) <= words), None)
