"""The frozen model: loading it, where its files are, its kernels, its autoencoder in parts, its context.

Nothing here is trained, and no method is known here.
"""
