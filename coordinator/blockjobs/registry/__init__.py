"""The only door to Redis: key names, bytes, scripts, the registry and the event stream."""
