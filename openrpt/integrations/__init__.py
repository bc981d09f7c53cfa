"""Other ecosystems: each an optional extra, imported only when asked for."""
