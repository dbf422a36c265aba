"""Video-free video editing: edit videos with a model trained on single-frame image pairs."""

from imvideoedit.vision import mend_torchvision

__version__ = "0.1.0"

mend_torchvision()
