"""Benchmarks of video editing: the public ones from folders that a user has, and a template after the paper's own."""
