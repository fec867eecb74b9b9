"""The processes of the control plane: coordinator and finalizer, two loops of take, view, decide and send."""
