"""VBench's six dimensions for custom videos (Huang et al. 2024, arXiv 2311.17982), reimplemented.

Differences from the package, known from its code; their effects were not measured, so our values are not comparable:

- motion smoothness interpolates by flow (RAFT, Super SloMo's equations) where VBench uses AMT-S, which neither timm nor
  torchvision has; its values are lower for complex motion;
- RAFT's weights are torchvision's C+T training where VBench has the authors' raft-things;
- CLIP comes from transformers, with the same weights; timm interpolates DINO's position embedding;
- frames are resized without antialiasing, as torchvision did for tensors when VBench appeared; today it smooths them;
- dynamic degree needs at least one moving pair, even where VBench's rounding needs none.

``cross_check`` compares the two, with the package in its own environment.
"""
