"""What a host remembers durably of its jobs: journals, devices written in place, the highest decision."""
