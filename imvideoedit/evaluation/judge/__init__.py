"""A vision-language model as judge of edits: what it is asked, what its answers count, whether to believe it."""
