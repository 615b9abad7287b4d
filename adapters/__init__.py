"""What a checkpoint is and what it computes, in pure torch. Knows no host."""
