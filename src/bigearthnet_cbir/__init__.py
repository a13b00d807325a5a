"""Content-based image retrieval on BigEarthNet-MM: paired Sentinel-1 and Sentinel-2 patches."""

__version__ = "0.1.0"
