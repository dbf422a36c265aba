"""The procedural world: scenes, rendering, exact edits of ten tasks, captions and their grammar.

Uses numpy alone, no torch, and knows nothing of models.
"""
