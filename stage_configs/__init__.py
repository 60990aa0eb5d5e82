"""The packaged YAML: pipelines and presets."""
