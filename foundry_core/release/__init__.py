"""What leaves this machine: a policy as a folder that says what it is, and a hub to put it on."""
