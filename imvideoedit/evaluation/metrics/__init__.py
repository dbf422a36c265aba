"""Metrics of one edited video, as plain functions of frames; networks come in as arguments."""
