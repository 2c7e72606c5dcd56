"""Runs checks in the order of their facts, live or from a recording, and makes the report."""
