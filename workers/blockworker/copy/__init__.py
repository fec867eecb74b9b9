"""The copy loop and what it needs: ranges, throttle, digests, lanes."""
