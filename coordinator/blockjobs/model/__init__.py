"""What a job, a transaction and a volume are: values and tables, no I/O, no clock."""
