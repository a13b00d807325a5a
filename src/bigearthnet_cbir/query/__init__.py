"""Questions to an index: filters, one exact search, and marks that refine it."""
