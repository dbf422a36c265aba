"""Tests, laid out as the package is. What is set here holds before any test module imports anything."""

import os

from hypothesis import settings

# The models under test are tiny: more threads cost time and make the last bits depend on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing under test may reach for the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import imvideoedit  # noqa: E402, F401  (mends torchvision before a test module imports what needs it)

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
