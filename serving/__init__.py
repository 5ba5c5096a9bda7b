"""The gateway that answers and takes feedback, and the rollout controller that says which version answers."""
