"""What every process of ours needs of its machine: clocks, children, a service manager's watchdog, a quarantine."""
