"""The server: a single web page and a JSON API for the indexes of one or more runs."""
