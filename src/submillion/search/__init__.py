"""The search for better settings: each run of a trial is one process, and all commands share one study."""
