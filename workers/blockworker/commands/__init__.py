"""The commands of the data plane; they join ``blockjobs`` by entry point, each from a file of its own."""
