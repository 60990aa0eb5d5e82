"""What devices could do at most. No torch."""

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


def peak_of(name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by its name; None for one that the table lacks."""
    words = name.replace("-", " ").split()
    for known, peak in PEAKS.items():
        if all(word in words for word in known.split()):
            return peak * 1e12
    return None
