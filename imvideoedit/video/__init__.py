"""Files in and out: videos and images are read and written with their times, colours and sound.

Frames and files only; no training data, no model.
"""
