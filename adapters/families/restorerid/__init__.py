"""RestorerID: restores a damaged face after a reference picture of the same person, on SD1.5."""
