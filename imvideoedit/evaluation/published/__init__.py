"""Numbers that papers published, as CSV, quoted beside own ones.

Nothing measured here is kept in this room.
"""
