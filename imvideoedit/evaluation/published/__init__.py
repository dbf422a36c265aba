"""Tables from papers as CSV, quoted next to our own.

Nothing in this room was measured by this project.
"""
