"""What runs when: flows, the command line, reports."""
