"""The update cycle: preferences to a reward model, to a policy, through the gates, to a registered version."""
