"""People who don't exist: their taste, their prompts, their habits, their traffic and their labels."""
