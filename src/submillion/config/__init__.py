"""Every setting, and the reading of settings."""
