"""QEMU's machine protocol, spoken for a fleet: the wire, the argument tables, the commands, the events."""
