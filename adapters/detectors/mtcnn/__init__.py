"""MTCNN: the three-network cascade of Zhang et al. 2016, with the weights of the ``mtcnn`` package."""
