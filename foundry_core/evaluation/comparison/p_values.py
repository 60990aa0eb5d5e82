"""p-values in words. Apart from what computes them, which takes a second to import."""

# Sums of many terms are good to this.
SMALLEST_P = 1e-12


def p_text(p: float | None) -> str:
    """Three decimals, or the power of ten below a thousandth."""
    if p is None:
        return "none"
    if p < SMALLEST_P:
        return f"< {SMALLEST_P:.0e}"
    return f"{p:.1e}" if p < 1e-3 else f"{p:.3f}"
