"""The suites of `python -m imvideoedit.evaluate` for real edits, and readers of published benchmarks.

They combine scorers and pages; the rooms below measure.
"""
