"""One machine: the embedded broker, and the supervisor of the processes beside it."""
