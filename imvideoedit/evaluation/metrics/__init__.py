"""Measures of real edits by open networks and classical vision: text alignment, time, source, autoencoder.

The networks and their weights come from `weights`.
"""
