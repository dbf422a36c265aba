"""NanoEdit-Bench: edits of held-out nano videos, scored against exact answers, with tables and plots.

``clip_edits`` measures LoRA-Edit, which is fitted to each clip.

Real edits have no exact answer; the other rooms of ``evaluation`` score them.
"""
