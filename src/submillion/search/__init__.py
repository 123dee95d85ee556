"""The search for better settings: trials in processes of their own, one study for all who work on it."""
