"""Flow matching: the path from clean to noise and its loss, solvers, guidance.

Everything here is a function of a velocity or of tensors; no model is known by name.
"""
