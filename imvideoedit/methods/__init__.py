"""Ways to edit: one file a method, what they share, and the adapter file that holds their weights.

A method knows the frozen model and flow matching; it knows no files, no trainer and no pipeline.
"""
