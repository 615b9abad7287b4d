"""Small networks trained on drawn faces, so that a fresh machine can show a result: what, on what, how long."""
