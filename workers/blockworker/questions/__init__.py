"""Questions and orders that a host answers outside of any job's steps: volumes, patterns, pruning, sweeping."""
