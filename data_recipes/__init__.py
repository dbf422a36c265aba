"""Where image pairs come from: prompts, synthesis, filter, review, export."""
