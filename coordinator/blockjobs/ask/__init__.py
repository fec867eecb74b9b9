"""Questions that somebody puts to hosts and waits for: each by a record of the registry and a message that names it."""
