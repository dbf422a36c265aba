"""Video-free video editing: edit videos with a model trained on single-frame image pairs."""

__version__ = "0.1.0"
