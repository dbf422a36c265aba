"""Networks that score, and the files of their weights: what is needed, checked, prepared, or tiny for tests.

What is done with them is `metrics` and `vbench`.
"""
