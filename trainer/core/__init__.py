"""What the trainer decides: rewards, losses, rollouts, PPO and its judge, as functions of values.

Imports torch and the contracts; never a client library, the clock or the environment.
"""
