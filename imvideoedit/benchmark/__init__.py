"""Costs on this machine as ratios: blocks, training steps, edits, lengths, the 13K experiment.

Speed is measured here; no test asserts it.
"""
