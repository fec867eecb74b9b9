"""The host: configuration, roots, mounts, and the host's records about itself."""
