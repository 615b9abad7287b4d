"""SegFace (AAAI 2025): face parsing with one learned token for each class."""
