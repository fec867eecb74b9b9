"""Numbers: validation of numbers given by users (whole numbers of 64 bits, times), and sizes as text."""

from __future__ import annotations

from typing import Final

from blockjobs.model.errors import BadInput

MOST: Final = (1 << 63) - 1  # bytes, bytes a second: the largest number of Redis, of QMP and of a file's offset
CENTURY: Final = 3_155_760_000  # seconds
UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def whole_number(value: object, what: str) -> int:
    """``value``, if it is a whole number from 0 to ``MOST``.

    Raises:
        BadInput: the value is out of range or no whole number; ``what`` names the field.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise BadInput(
            f"{what}: {_shortened_value(value)} is not accepted; a whole number from 0 to {MOST} was expected"
        )
    return value


def milliseconds_of(seconds: float, what: str) -> int:
    """A time in milliseconds, at least 1 unless ``seconds`` is 0.

    Raises:
        BadInput: the time is negative, over a hundred years, or no number; ``what`` names the field.
    """
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds <= CENTURY:
        raise BadInput(
            f"{what}: {_shortened_value(seconds)} is not accepted; a time from 0 to {CENTURY} seconds was expected"
        )
    return max(1, round(seconds * 1000)) if seconds else 0


def size_text(count: float) -> str:
    """Bytes as people read them: 1536 -> ``1.5 KiB``."""
    for unit in UNITS:
        if abs(count) < 1024 or unit == UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError(count)


def _shortened_value(value: object) -> str:
    """``value`` on one line, shortened."""
    text = (
        f"a whole number of {value.bit_length()} bits"
        if isinstance(value, int) and abs(value) > 1 << 200
        else repr(value)
    )
    return text if len(text) <= 80 else f"{text[:80]}..."
