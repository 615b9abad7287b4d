"""Measures of results: identity similarity and its thresholds."""
