"""Training data: records of pairs and the forms they are read from, buckets, batches, shards of encoded tensors, and a check.

Reading and writing videos is `video`; encoding with a model is `training`.
"""
