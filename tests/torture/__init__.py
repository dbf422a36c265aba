"""What `make torture` runs: every parser under mutated inputs, every writer under kills, full disks and flipped bits.

Not collected by pytest. A part is a module with ``run(scale, planted) -> Iterator[Row]``: ``scale`` 1.0 is the whole
of it, less is a quick try; ``planted`` puts a known fault in, which the part must report.
"""
