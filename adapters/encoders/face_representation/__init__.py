"""FLR: a face representation learnt without labels, for attributes from few examples."""
