"""Files of a run: run folder, feature files, results, training log."""
