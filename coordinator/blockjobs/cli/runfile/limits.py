"""Limits of the size of a run file: a single table of numbers with reasons.

The size of a file is the size of the expansion.  Every limit is checked by counting, before content is copied or made.
"""

from __future__ import annotations

from typing import Final

FILE: Final = 2 << 20  # bytes of the file; 10,000 jobs in long form are 1.5 MB
NODES: Final = 200_000  # keys and values, after expansion of aliases; 10,000 jobs in long form are 150,000
TEXT: Final = 16 << 20  # characters of keys and values, counted in the same way
DEPTH: Final = 64  # nested lists and mappings; a volume with twenty layers below it takes 45
SCALAR: Final = 8192  # characters of a key or value; the longest path of Linux has 4,095
NUMBER: Final = 100  # characters of a number, a time or true and false; the largest number of any field has 19
HOSTS: Final = 10_000  # hosts of a range
GROUPS: Final = 10_000  # groups of hosts, and stores
NAMES: Final = 100_000  # hosts of the groups and transactions of a file together
JOBS: Final = 50_000  # jobs of a run, after hosts x sources and patterns: 10,000 hosts, five jobs each
UNKNOWN: Final = 10  # unknown fields of a mapping: the first fields are checked, and refused
