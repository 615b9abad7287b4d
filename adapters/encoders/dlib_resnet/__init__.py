"""The 128-d face recognition network of dlib."""
