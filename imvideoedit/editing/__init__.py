"""From a file and an instruction to an edited file: pipeline, denoiser, windows, offload, jobs, prompts.

Whatever trains or scores is above this room.
"""
