"""How long something took or will take, as people say it."""

from __future__ import annotations

_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def duration(seconds: float) -> str:
    """A length of time in its two largest units: `0.4 s`, `18 s`, `2 min 5 s`, `6 h 23 min`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    smallest = 1 if seconds < 3_600 else 60 if seconds < 86_400 else 3_600
    whole = round(seconds / smallest) * smallest
    for size, large, unit, small in _UNITS:
        if whole >= size:
            rest = whole % size // unit
            return f"{whole // size:,} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
