"""The stages of the pipeline, built from the configuration."""
