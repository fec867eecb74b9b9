"""Resolutions for a committed image with a foreign file under its name, in the way of publishing."""

from __future__ import annotations

from enum import StrEnum


class Resolution(StrEnum):
    REPLACE = "replace"  # the foreign file is put aside
    BESIDE = "beside"  # the image is published under another name
    DISCARD = "discard"  # the staging file is removed


def resolution_text(how: str, target: str, run: str) -> str:
    """A sentence about a finished resolution, for people.  ``target``: HOST:/PATH of the image."""
    match how:
        case Resolution.REPLACE:
            return f"published; the file that had its name is {target}.replaced-{run}"
        case Resolution.BESIDE:
            return f"published beside the file that has its name, as {target}"
        case Resolution.DISCARD:
            return "not published: its staging file was removed"
    return how
