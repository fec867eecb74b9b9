"""blockworker: the data plane of blockjobs; it runs on the storage hosts and moves the bytes."""
