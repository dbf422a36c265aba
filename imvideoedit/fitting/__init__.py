"""Fitting an adapter to one clip: its mask followed through time, two stages of training, the edit; each resumable.

Training steps, adapter files and editing are those of the rooms below; here is what makes one clip's mask and stages.
"""
