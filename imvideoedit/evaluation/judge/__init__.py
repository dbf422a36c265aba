"""Vision-language models as judges: protocols, the scorer, agreement, and a check on exact answers.

Asking a model at all is `clients`.
"""
