"""The nano backbone: its pretraining, its bundled weights and adapter, and pairs of the world for training.

The only room that connects the procedural world to training; scoring is `evaluation`.
"""
