"""What a host is: its configuration, its roots, what is mounted there, and what it remembers about itself."""
