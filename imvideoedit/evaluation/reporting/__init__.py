"""What all reports share: tables, charts, statistics, JSON files, and the pages' templates.

Nothing here knows what is measured.
"""
