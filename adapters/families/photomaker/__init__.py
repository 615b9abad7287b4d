"""PhotoMaker v1 and v2, for SDXL."""
