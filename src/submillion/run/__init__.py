"""The run folder: its files, their meaning, and how they are read."""
