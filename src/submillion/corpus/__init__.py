"""The shipped corpus of original news items for the demo."""
