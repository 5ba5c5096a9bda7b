"""The contracts: every event, topic, table and error that two processes share.

Imports pydantic and the standard library only, so that any program can read them at no cost.
"""
