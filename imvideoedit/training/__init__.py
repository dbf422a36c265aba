"""Training a method: task, data module, encoding, optimizers, checkpoints, strategies, monitor, dry run.

Works for every method, backbone and data set; the nano world and benchmarks are above it.
"""
