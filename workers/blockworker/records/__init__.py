"""Durable records of a host about its jobs: journals, devices written in place, the highest decision."""
