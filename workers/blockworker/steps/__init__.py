"""The steps worker: a host's work for its transactions, in processes that can be given up, a few per file system."""
