"""Parsers for the words of a run file: sizes, times, shares, names of many hosts.

Each parser raises ValueError, with the error and the expected value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Final

from blockjobs.cli.runfile.limits import HOSTS
from blockjobs.cli.runfile.yaml_places import yaml_text
from blockjobs.model import ids
from blockjobs.model.errors import BadInput
from blockjobs.model.numbers import MOST
from blockjobs.model.policies import Offline

LONGEST: Final = 366 * 86400  # seconds
UNITS: Final = {
    "": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip
TIMES: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE: Final = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Za-z]*)(?:/s)?", re.ASCII)
_TIME: Final = re.compile(r"(?:([0-9]{1,9})\s*([smhd])\s*)+", re.ASCII)
SALVAGED: Final = "salvaged"
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", re.ASCII)
_BRACKET: Final = re.compile(r"\[([^\[\]]*)\]")
_RANGE: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", re.ASCII)


def parse_size(value: object) -> int:
    """Bytes (or bytes a second) from a number or from a text with a unit."""
    number: Fraction | int = -1
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())) and match[2] in UNITS:
        number = Fraction(match[1]) * UNITS[match[2]]
        if UNITS[match[2]] == 1 and number.denominator != 1:  # bytes are whole
            number = -1
    if not 0 <= number <= MOST:
        raise ValueError(
            f"{yaml_text(value)} is not a size; a number of bytes, 0 or more, or a text such as 200MiB or 1.5GiB/s was "
            f"expected, a whole number from 0 to {MOST} in all"
        )
    return int(number)


def parse_duration(value: object) -> int:
    """Seconds from ``90s``, ``30m``, ``6h``, ``2d`` or ``1h30m``; a number without a unit could be anything."""
    seconds = 0
    if isinstance(value, str) and _TIME.fullmatch(value.strip()):
        seconds = sum(int(number) * TIMES[unit] for number, unit in re.findall(r"([0-9]+)\s*([smhd])", value))
    if not 0 < seconds <= LONGEST:
        raise ValueError(f"{yaml_text(value)} is not a time; a text such as 90s, 30m, 6h or 1h30m was expected")
    return seconds


def parse_percent(value: object) -> float:
    """95.0 from ``95%``; more than 0, at most 100."""
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    share = float(match[1]) if match else 0.0
    if not 0 < share <= 100:
        raise ValueError(f"{yaml_text(value)} is not a share; a text from 1% to 100%, such as 95%, was expected")
    return share


def share_or_salvaged(value: object) -> float | str:
    """95.0 from ``95%``; or the word ``salvaged``."""
    if value == SALVAGED:
        return SALVAGED
    try:
        return parse_percent(value)
    except ValueError as error:
        raise ValueError(f"{error}, or {SALVAGED}") from None


def parse_offline(value: object) -> Offline:
    """``fail``, ``skip`` or ``wait TIME``."""
    if value in ("fail", "skip"):
        return Offline(what=str(value))
    if isinstance(value, str) and (words := value.split(maxsplit=1)) and words[0] == "wait":
        return Offline(what="wait", seconds=parse_duration(words[1] if len(words) > 1 else ""))
    raise ValueError(
        f"{yaml_text(value)} is not accepted; 'fail', 'skip' or 'wait TIME', such as 'wait 30m', was expected"
    )


def expand_hosts(value: object) -> tuple[str, ...]:
    """``web[01-03,7]`` -> web01, web02, web03, web7; a name without brackets is itself."""
    if not isinstance(value, str):
        raise ValueError(f"{yaml_text(value)} is not a host; a name, or a range such as web[01-40], was expected")
    many = count_hosts(value)
    if many > HOSTS:
        raise ValueError(f"{yaml_text(value)} is {many} hosts; at most {HOSTS} were expected")
    parts = _BRACKET.split(value)
    choices = [(part,) if at % 2 == 0 else _expand_numbers(value, part) for at, part in enumerate(parts)]
    try:
        return tuple(ids.checked_host_name("".join(each)) for each in product(*choices))
    except BadInput as wrong:
        raise ValueError(str(wrong)) from None


def count_hosts(value: str) -> int:
    """Number of hosts of a range, counted without making hosts; the count stops early when it exceeds the limit.

    Raises:
        ValueError: the range is malformed.
    """
    many = 1
    for text in _BRACKET.split(value)[1::2]:
        many *= sum(last - first + 1 for first, last, _ in _parse_ranges(value, text))
        if many > HOSTS:
            break
    return many


def _expand_numbers(whole: str, text: str) -> tuple[str, ...]:
    """The numbers between two brackets, such as ``01-40,50``; as wide as the first number is written."""
    found: dict[str, None] = {}
    for first, last, width in _parse_ranges(whole, text):
        found |= dict.fromkeys(f"{number:0{width}}" for number in range(first, last + 1))
    return tuple(found)


def _parse_ranges(whole: str, text: str) -> Iterator[tuple[int, int, int]]:
    """First and last number of each range between two brackets, and the number of digits of the first."""
    for item in text.split(","):
        match = _RANGE.fullmatch(item.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or first > last or (match[2] and len(match[2]) < len(match[1])):
            wrong = yaml_text(f"[{text}]")
            raise ValueError(
                f"{yaml_text(whole)}: {wrong} is not a range; one such as [01-40] or [1,3,7-9] was expected"
            )
        yield first, last, len(match[1])
