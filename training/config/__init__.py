"""Configuration of a training run: its schema, TOML files, presets and hardware-dependent defaults."""
