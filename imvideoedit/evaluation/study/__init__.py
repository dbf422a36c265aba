"""A study with people: plan, page to rate on, ratings, analysis.

Scores of machines live elsewhere.
"""
