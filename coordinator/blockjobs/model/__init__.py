"""Values and tables about jobs, transactions and volumes: no I/O, no clock."""
