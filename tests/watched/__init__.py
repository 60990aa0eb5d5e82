"""A small pipeline with something to watch: pictures, a training with curves, rollouts, a verdict."""
