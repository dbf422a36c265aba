"""Scores: `nano` against exact answers, the other rooms for real edits.

Each room imports those before it in the list of tests/test_imports.py.
"""
