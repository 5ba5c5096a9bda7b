"""Prompts that try a version out, and what is measured of its answers. Pure: texts in, numbers out.

suite.py     the probes, and which of them a cycle asks
refusals.py  whether an answer refuses, takes care, or gives in
wording.py   repetition, flattery, questions, format: the marks of a reward that was gamed
"""
