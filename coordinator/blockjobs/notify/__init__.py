"""Carrying one message to one URL, in a process of its own that is killed when it takes too long."""
