"""Where diffusers finds the nano autoencoder: a folder's ``model_index.json`` names this module.

diffusers takes a class of a module ``….wan.…`` for one of its own Wan pipelines, so the class is said to live here; and
it looks for ``ModelMixin`` next to the class. Import this module before ``WanPipeline.from_pretrained``.
"""

from diffusers import ModelMixin

from imvideoedit.wan.patch_autoencoder import NanoAutoencoder

__all__ = ["ModelMixin", "NanoAutoencoder"]

NanoAutoencoder.__module__ = __name__
