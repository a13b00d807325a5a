"""Contrastive losses on pairs of embeddings, and the multi-label classification loss."""
