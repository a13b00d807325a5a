"""The encoders: trunks, projection heads, fusion, and the dual-branch model."""
