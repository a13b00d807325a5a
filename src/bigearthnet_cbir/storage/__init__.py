"""Files of a run: its folder, features and results."""
