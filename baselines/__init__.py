"""The papers' models, plugged in exactly as anyone's own model would be."""
