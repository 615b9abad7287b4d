"""ArcFace recognition networks of the insightface packs."""
