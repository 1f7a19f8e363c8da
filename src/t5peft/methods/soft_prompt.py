"""Soft prompt tuning, from scratch.

Lester, Al-Rfou and Constant (2021), "The Power of Scale for Parameter-Efficient Prompt Tuning".

    [P ; E(x)]                                    instead of E(x), at the encoder's input

    P  (n, d)     trained prompt                  E  (V, d)  frozen embedding
    x  (B, T)     token ids of the text; n placeholders (the pad token, mask 1) stand before it
    d  d_model    n  prompt tokens                V  vocabulary

Initialisation: P is a copy of the first n rows of E. Parameters added: n d.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from t5peft.methods.sites import Sites, find, replace


class SoftPromptEmbedding(nn.Module):
    """The encoder's embedding layer, with the first n positions replaced by the trained prompt."""

    def __init__(self, embedding: nn.Embedding, tokens: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.prompt = nn.Parameter(embedding.weight[:tokens].detach().clone())  # P, (n, d)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, n + T) ids, placeholders first -> (B, n + T, d) embeddings."""
        batch, tokens = input_ids.shape[0], self.prompt.shape[0]
        text = self.embedding(input_ids[:, tokens:])  # E(x), (B, T, d)
        prompt = self.prompt.expand(batch, -1, -1)  # (B, n, d)
        return torch.cat([prompt, text], dim=1)  # [P ; E(x)]


def sites(model: nn.Module) -> Sites:
    """One site: the encoder's embedding. The decoder keeps the one that they shared."""
    return find(model, lambda name, module: name == "encoder.embed_tokens")


def inject(model: T5ForConditionalGeneration, tokens: int) -> None:
    """Put the method into a frozen T5, in place."""
    replace(model, sites(model), lambda site: SoftPromptEmbedding(site, tokens))
