"""The copy loop with its parts: ranges, throttle, digests, lanes."""
