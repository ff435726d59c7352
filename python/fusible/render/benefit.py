"""What a finding says it would save, in words."""

from __future__ import annotations

from fusible.report import Diagnostic

UNKNOWN = "unknown: no shapes are known here"


def amount(n: float) -> str:
    """1234567 -> "1.2 MB"."""
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} GB"


def operations(n: float) -> str:
    """1234567 -> "1.2 MFLOP"."""
    return amount(n).removesuffix("B").strip().replace(" k", " K") + ("FLOP" if n >= 1000 else " FLOP")


def duration(nanoseconds: float) -> str:
    """1234567 -> "1.235 ms"."""
    return f"{nanoseconds / 1e6:.3f} ms"


def short(diagnostic: Diagnostic) -> str:
    """ "0.120 ms and 2.4 MB"; "nothing" where no operator follows that it could take in; "" when it is not known."""
    benefit, parts = diagnostic.benefit, []
    if benefit.ns >= 0:
        parts.append(duration(benefit.ns))
    if benefit.bytes > 0:
        parts.append(amount(benefit.bytes))
    if benefit.flops > 0:
        parts.append(operations(benefit.flops))
    return " and ".join(parts) or ("nothing" if benefit.bytes == 0 else "")


def told(diagnostic: Diagnostic) -> str:
    """With what it rests on. A missed fusion whose benefit is not known says so; what is only explained has none."""
    if text := short(diagnostic):
        return text + " per call" + (f" ({diagnostic.benefit.basis})" if diagnostic.benefit.basis else "")
    return UNKNOWN if diagnostic.kind == "missed" else ""
