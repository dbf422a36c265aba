"""NanoEdit-Bench: edits of held-out scenes against exact answers, scored, summed up and drawn.

Real edits, which have no exact answer, are scored in the rooms beside it.
"""
