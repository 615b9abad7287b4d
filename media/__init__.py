"""Pictures, clips and audio in files: chunked decoding and encoding through PyAV. Knows neither host nor networks."""
