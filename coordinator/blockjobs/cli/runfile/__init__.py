"""Read a run file: YAML 1.2 becomes a RunPlan, or an error of one line with the place and the expected value.

``text`` turns a file into checked fields and finds the line of an error, ``fields`` declares the fields, ``units``
parses their words; ``expansion`` makes jobs of sources and hosts, ``plan`` makes a run of jobs.
"""

from blockjobs.cli.runfile.expansion import FleetFacts
from blockjobs.cli.runfile.plan import RunFileRead, load_run_file, read_run_file
from blockjobs.cli.runfile.text import read_whom
from blockjobs.cli.runfile.units import parse_size

__all__ = ["FleetFacts", "RunFileRead", "load_run_file", "parse_size", "read_run_file", "read_whom"]
