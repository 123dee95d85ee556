"""Fine-tune a text classifier with fewer than a million trainable parameters, and know exactly what you got."""

__version__ = "0.1.0"
