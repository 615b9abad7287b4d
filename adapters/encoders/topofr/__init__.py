"""TopoFR: residual networks for face recognition, trained to keep the topology of their pictures."""
