"""Clients of language models, behind an endpoint or in this process: texts and images in, JSON out.

The questions of a certain stage or judge belong to that stage or judge.
"""
