"""Edits that a family offers to let refused traffic through: full objects, neither verified nor counted.

`smallest` applies each in memory, asks again, counts what else it opens and ranks. So an offer may be hopeful: one that
does not help, or that the API server would refuse, is dropped there.
"""
