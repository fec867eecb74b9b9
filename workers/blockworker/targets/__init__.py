"""Targets: what makes bytes durable, and visible all at once or not at all."""
