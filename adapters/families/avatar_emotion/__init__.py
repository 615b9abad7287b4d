"""AEM: the emotion of a reference picture for HunyuanVideo-Avatar, after the paper; its authors released none."""
