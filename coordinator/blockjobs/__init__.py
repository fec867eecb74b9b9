"""blockjobs: QEMU's block jobs for a fleet.  This package is the control plane; ``blockworker`` moves the bytes."""

__version__ = "0.1.0"
