"""Where a training step's time and memory go: the trainer's own steps, watched in several ways."""
