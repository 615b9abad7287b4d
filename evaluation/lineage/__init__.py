"""Where a model file comes from and what its licences ask: read from the file and its card, offline.

A hint, not legal advice.
"""
