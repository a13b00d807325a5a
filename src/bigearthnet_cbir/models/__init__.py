"""The encoders: backbones, projection heads, fusion, and the dual-branch model."""
