"""A small pipeline with something to watch: pictures, trainings, rollouts, a verdict."""
