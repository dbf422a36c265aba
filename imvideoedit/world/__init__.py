"""The procedural world: scenes, rendering, exact edits of ten tasks, captions and their grammar.

numpy alone, no torch; nothing here knows that there are models.
"""
