"""Real edits on disk: the manifest of edits, their frames, scores and the folder that stores them.

How a score is measured belongs to `metrics`, `vbench` and `judge`.
"""
