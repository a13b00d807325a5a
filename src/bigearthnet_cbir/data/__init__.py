"""Readers of patch data: GeoTIFFs, LMDB patch stores, split lists, the dataset and its transforms."""
