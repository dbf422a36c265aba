"""VBench's six dimensions for custom videos (Huang et al. 2024, arXiv 2311.17982), implemented anew.

Differences from the package, known from reading it; none of them has been measured, so ours are not its numbers:

- motion smoothness interpolates by flow (RAFT, Super SloMo's equations) where VBench uses AMT-S, which neither timm nor
  torchvision has; its values lie lower where motion is complex;
- RAFT's weights are torchvision's C+T training where VBench has the authors' raft-things;
- CLIP comes from transformers, with the same weights; DINO's position embedding is stretched by timm;
- frames are resized without antialiasing, as torchvision did with tensors when VBench appeared; today's smooths them;
- dynamic degree needs at least one moving pair where VBench's rounding would ask for none.

``cross_check`` compares the two, the package in its own environment.
"""
