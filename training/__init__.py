"""Training: losses, curricula, loops, heads. Needs no host."""
