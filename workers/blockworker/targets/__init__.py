"""Targets: images that become durable first, and then visible as a whole by a rename."""
