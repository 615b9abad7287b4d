"""The three adapters of FaceChain-ImagineID's frame generation: our construction from the paper's summaries."""
