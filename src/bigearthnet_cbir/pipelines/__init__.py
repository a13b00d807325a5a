"""The stages, put together from the configuration."""
