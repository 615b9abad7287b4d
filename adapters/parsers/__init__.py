"""Networks that tell the parts of a face; each is a folder with its arch and its family."""
