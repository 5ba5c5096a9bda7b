"""Base models: where they come from, and how they get onto this machine without a model hub."""
