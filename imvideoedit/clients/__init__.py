"""Models that are asked over an endpoint or in this process: texts and images in, JSON out.

Questions of a certain stage or judge stay with that stage or judge.
"""
