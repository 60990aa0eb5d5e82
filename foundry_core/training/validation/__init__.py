"""Validation while training: fixed samples of the held-out sides, with fixed noise and no
augmentation, on the live weights and on their average."""
