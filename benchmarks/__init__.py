"""Measured comparisons. Each prints ratios against a named alternative or limit, taken in one run."""
