"""What a user may say: sections of the configuration, algorithms, how TOML is read. No torch."""
