"""The report of real edits as one HTML page: figures, numbers, strips and tables.

It reads scores; it measures nothing.
"""
