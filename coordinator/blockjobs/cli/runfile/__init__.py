"""A run file, read: YAML 1.2 to a RunPlan, or one line that says where it is wrong and what was expected.

``text`` gets from a file to checked fields and back to the line that is to blame, ``fields`` says what a file may hold,
``units`` what its words mean; ``expansion`` makes jobs of sources and hosts, ``plan`` makes a run of them.
"""

from blockjobs.cli.runfile.expansion import FleetFacts
from blockjobs.cli.runfile.plan import RunFileRead, load, read
from blockjobs.cli.runfile.text import read_whom
from blockjobs.cli.runfile.units import size

__all__ = ["FleetFacts", "RunFileRead", "load", "read", "read_whom", "size"]
