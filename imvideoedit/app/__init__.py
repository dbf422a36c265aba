"""The web page of `imvideoedit-app`: layout, queue of edits, live view, samples, texts.

It edits through `editing` alone; no model is touched here.
"""
