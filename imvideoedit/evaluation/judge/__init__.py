"""Vision-language models as judges: protocols, the scorer, agreement, and a check on exact answers.

The calls of a model belong to `clients`.
"""
