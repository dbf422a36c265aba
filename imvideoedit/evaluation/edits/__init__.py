"""Edits of real videos: which there are, and the scores of each, kept so that nothing is computed twice."""
