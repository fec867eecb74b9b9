"""Import every installed module but those named, and the transport of the broker: `imports.py [MODULE]...`."""

import pkgutil
import sys
from importlib import import_module

from kombu import Connection

import blockjobs
import blockworker

for package in (blockjobs, blockworker):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name not in sys.argv[1:] and not module.name.endswith("__main__"):
            import_module(module.name)
Connection("redis://").transport  # noqa: B018 - kombu looks for what its transport needs only now
