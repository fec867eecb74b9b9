"""The processes of the control plane: coordinator and finalizer.  Each is a loop: take, view, decide, send."""
