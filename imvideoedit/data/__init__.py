"""Training data: records of image pairs, size buckets, batches, shards of encoded tensors, and a check.

Reading and writing videos is `video`; encoding with a model is `training`.
"""
