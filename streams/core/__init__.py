"""What is decided: pure functions of values, without clock, network or disk."""
