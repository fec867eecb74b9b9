"""How large a run file may be: one table, each number with its reason.

The size of a file is what it expands to.  Everything here is counted before anything is copied or made.
"""

from __future__ import annotations

from typing import Final

FILE: Final = 2 << 20  # bytes of the file; 10,000 jobs in long form are 1.5 MB
NODES: Final = 200_000  # keys and values, all aliases expanded; 10,000 jobs in long form are 150,000
TEXT: Final = 16 << 20  # characters of all keys and values, counted in the same way
DEPTH: Final = 64  # lists and mappings inside one another; a volume with twenty layers below it takes 45
SCALAR: Final = 8192  # characters of one key or value; the longest path of Linux has 4,095
NUMBER: Final = 100  # characters of a number, a time or true and false; the largest number of any field has 19
HOSTS: Final = 10_000  # hosts of one range
GROUPS: Final = 10_000  # groups of hosts, and stores
NAMES: Final = 100_000  # hosts of all groups and transactions of a file
JOBS: Final = 50_000  # jobs of a run, after hosts x sources and patterns: 10,000 hosts, five jobs each
UNKNOWN: Final = 10  # fields of one mapping that nobody knows: the first ones are checked, and refused
