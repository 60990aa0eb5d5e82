"""TRI's LBM Eval as it is installed by its users: found, driven against a policy of ours, read."""
