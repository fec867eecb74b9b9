"""Functions for the processes of this project: clocks, children, a service manager's watchdog, a quarantine."""
