"""The web page of `imvideoedit-app`: layout, queue of edits, live view, samples, texts, and fits to one clip.

It edits through `editing` alone, and fits by the command; no model is touched here.
"""
