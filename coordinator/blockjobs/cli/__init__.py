"""The command line: commands, run files, and running everything on one machine."""
