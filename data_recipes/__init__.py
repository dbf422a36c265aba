"""Where image pairs come from: prompts, synthesis, filter, review, export.

A program of its own on top of `imvideoedit`; nothing in there imports it.
"""
