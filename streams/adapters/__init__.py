"""What is touched: the log, the lake and the place for what is no event. One file for each."""
