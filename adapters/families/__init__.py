"""The systems whose checkpoints can be loaded: one folder for each, with ``family.py`` and ``arch.py``."""
