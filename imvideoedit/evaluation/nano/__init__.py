"""NanoEdit-Bench: edits of held-out nano videos, scored against exact answers, with tables and plots.

Real edits have no exact answer; the other rooms of ``evaluation`` score them.
"""
