"""The report of real edits as one HTML page: estimates, plots, strips and tables.

It reads scores; it measures nothing.
"""
