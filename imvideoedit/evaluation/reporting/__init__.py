"""Tables, charts, intervals and JSON that all reports share.

Nothing here knows what is measured.
"""
