"""Lengths of time and sizes as people type and read them."""

import re

SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
BYTES = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


def seconds(text: str) -> float:
    """`90s`, `10m`, `2h` or `1d` in seconds; a bare number may have been meant as anything. Raises Misused."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|m|min|h|d)", text.strip())
    if not found:
        raise _misused(f"{text} is no length of time, which is a number with s, m, h or d, for example 10m.")
    return float(found[1]) * SECONDS[found[2]]


def size(text: str) -> int:
    """`2GB` or `512MB` in bytes. Raises Misused."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt])i?b?", text.strip(), re.IGNORECASE)
    if not found:
        raise _misused(f"{text} is no size, which is a number with MB or GB, for example 2GB.")
    unit = next(name for name in BYTES if name[0].lower() == found[2].lower())
    return int(float(found[1]) * BYTES[unit])


def in_words(count: float) -> str:
    """Bytes as a person reads them: "512 B", "13 MB", "1.5 GB"."""
    unit = "B"
    for name in BYTES:
        if count < 1024:
            break
        count, unit = count / 1024, name
    return f"{count:.0f} {unit}" if count >= 10 or count == int(count) else f"{count:.1f} {unit}"


def _misused(sentence: str) -> Exception:
    from allocator.cli.failures import Misused

    return Misused(sentence)
