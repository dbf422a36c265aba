"""The suites of `python -m imvideoedit.evaluate` for real edits, and reading published benchmarks.

They put scorers and pages together; measuring is done in the rooms below.
"""
