"""ReSwapper: inswapper's architecture, trained anew and published as torch weights (somanchiu/ReSwapper)."""
