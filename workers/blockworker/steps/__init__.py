"""The steps worker: what a host does for its transactions, in processes that can be given up, some a file system."""
