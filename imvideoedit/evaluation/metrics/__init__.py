"""Measures of real edits by open networks and classical vision: alignment, temporal, source, rebuild.

The networks and their weights come from `weights`.
"""
