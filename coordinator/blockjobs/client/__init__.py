"""The Python client: runs, verbs, holds, stores and events of a fleet."""
