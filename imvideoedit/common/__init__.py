"""What every room may use: errors, files, hashes, the command line of Hydra, web pages, this machine.

No model, no method and no data set lives here, and nothing of this package is imported from here.
"""
