"""The pretrained networks that metrics look with: which files, where from, which hash, and how they are loaded."""
