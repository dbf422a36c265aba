"""Training data: records of pairs in any form, buckets, batches, shards of encoded tensors, and a check.

Reading and writing videos is `video`; encoding with a model is `training`.
"""
