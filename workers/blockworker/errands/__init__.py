"""Work that touches paths, done in processes that can be given up: a few for each file system, and none for all."""
