"""Tensors in, tensors out: attention, rotary angles, spatial difference attention, gates, low-rank maps.

A layer knows no Wan model, no batch and no training.
"""
