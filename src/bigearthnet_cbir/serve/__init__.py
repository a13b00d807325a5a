"""The server: one page and a JSON API over the indexes of one or more runs."""
