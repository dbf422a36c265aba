"""A blind user study: a local page for raters, their ratings on disk, and what they amount to."""
