"""Makes data sets of image pairs: prompts, synthesis, filter, review, export.

A program of its own on top of `imvideoedit`, which does not import it.
"""
