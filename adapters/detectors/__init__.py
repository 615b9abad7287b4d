"""Face detectors: networks and weights of each, behind the one call of ``faces.detect.Detector``."""
