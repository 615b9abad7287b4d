"""Face encoders: from an aligned face to numbers that say who it is."""
