"""The report on scored edits of real videos: one page, pictures, tables."""
