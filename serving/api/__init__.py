"""The HTTP surface: handlers decode, call one thing, answer."""
