"""What all reports share: tables, charts, statistics, and the pages' templates.

Nothing here knows what is measured.
"""
