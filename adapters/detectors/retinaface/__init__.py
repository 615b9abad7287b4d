"""RetinaFace (Deng et al. 2020) with a ResNet-50 body, in the layout that FaceChain-FACT detects with."""
