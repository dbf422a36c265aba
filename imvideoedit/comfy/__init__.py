"""Nodes for ComfyUI: load a base, load an adapter, edit with an instruction, save; and the command that links them.

ComfyUI's own modules are imported while a node works, never when this package is imported. Nothing else imports this.
"""
