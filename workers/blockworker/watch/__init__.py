"""Observers of a host beside its work: the heartbeat, the pulse, dead attempts, abandoned transactions."""
