"""FaceChain-FACT: face tokens through a gated self-attention layer in every transformer block of SD1.5."""
