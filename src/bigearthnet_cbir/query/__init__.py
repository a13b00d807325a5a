"""Queries to an index: filters, exact similarity search and relevance feedback."""
