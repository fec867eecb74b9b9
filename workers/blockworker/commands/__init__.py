"""The commands of the data plane, a file per command; they join ``blockjobs`` by entry point."""
