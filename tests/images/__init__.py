"""The images and compose.yaml, with a real engine."""
