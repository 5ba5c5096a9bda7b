"""What is touched: the model, the log, the topic of versions, Prometheus. One file for each outside system."""
