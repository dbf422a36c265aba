"""Real edits on disk: the manifest of what was edited, frames to score, scores and their folder.

How a score is made is the business of `metrics`, `vbench` and `judge`.
"""
