"""Networks that score, and the files of their weights: listed, checked, downloaded, or tiny for tests.

What they measure belongs to `metrics` and `vbench`.
"""
