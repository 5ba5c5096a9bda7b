"""What the trainer touches: model files, tables, the registry, the log."""
