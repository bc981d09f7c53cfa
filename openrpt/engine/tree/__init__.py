"""The document tree: a shared prefix is computed once for all that hangs off it."""
