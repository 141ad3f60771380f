"""Relevance of tokens for the answer: attention times its gradient over the last blocks (Chefer et al., 2021).

The gradient of the highest logit is calculated in closed form. The classifier of most models reads one token, so the
last block needs the gradient of this token alone. From it, the gradient reaches all tokens; the block before follows it
only for the tokens of greatest relevance.
"""

from __future__ import annotations

from dataclasses import dataclass

from timm.models.vision_transformer import Block
from torch import Tensor, nn

from sagelink.models.pull_back import apply_chain, parts_of, pull_back, pull_back_chain


@dataclass(frozen=True, slots=True)
class BlockTrace:
    """Values of one forward pass through a block; B pictures, T tokens, H heads of width E."""

    block: Block
    tokens: Tensor  # (B, T, D) input
    normed: Tensor  # (B, T, D) input of the attention
    q: Tensor  # (B, H, T, E), not scaled
    k: Tensor
    v: Tensor
    raw_q: Tensor  # before the norm of queries and keys
    raw_k: Tensor
    after_attention: list[Tensor]  # inputs of the modules of `_out`
    gate: Tensor | None  # (B, T, H * E), before the sigmoid
    after_mlp: list[Tensor]  # inputs of the modules of `_mlp`


def _out(block: Block) -> list[nn.Module]:
    """The modules between attention and residual sum; a gate comes after the first."""
    return [block.attn.norm, block.attn.proj, block.ls1]


def _mlp(block: Block) -> list[nn.Module]:
    return [block.norm2, *parts_of(block.mlp), block.ls2]


def run_block(block: Block, tokens: Tensor) -> tuple[Tensor, BlockTrace]:
    """The output (B, T, D) of a block, as `block(tokens)`, and what the gradient needs."""
    attention = block.attn
    normed = block.norm1(tokens)
    qkv = attention.qkv(normed).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    raw_q, raw_k, v = qkv.unbind(0)
    q, k = attention.q_norm(raw_q), attention.k_norm(raw_k)
    mixed = nn.functional.scaled_dot_product_attention(q, k, v, scale=attention.scale)
    mixed = mixed.transpose(1, 2).flatten(2)
    module = getattr(attention, "gate", None)
    gate = None if module is None else module(normed)
    norm, *rest = _out(block)
    gated = norm(mixed) if gate is None else norm(mixed) * gate.sigmoid()
    out, inputs = apply_chain(rest, gated)
    between = tokens + out
    out, after_mlp = apply_chain(_mlp(block), between)
    return between + out, BlockTrace(block, tokens, normed, q, k, v, raw_q, raw_k, [mixed, *inputs], gate, after_mlp)


def relevance(traces: list[BlockTrace], start: Tensor, rows: Tensor, gradient: Tensor, most: int) -> Tensor:
    """The share (B, T) of each token in the answer, through the attention of the traced blocks.

    `start`: (1, T) or (B, T), the share of each final token in what the classifier reads. `rows`: (B, R) int64, the
    tokens that it reads, with the gradient (B, R, D) at the output of the last block. The result is
    start x (I + R_last) x ... x (I + R_first), where R is the mean over heads of max(attention x gradient, 0). Before
    the last block, only the `most` tokens with the greatest share so far are followed.
    """
    row = start.expand(len(gradient), -1)
    for trace in reversed(traces):
        step = _Step.back(trace, rows, gradient)
        row = row + (take(row, rows)[:, None] @ step.relevance)[:, 0]
        if trace is not traces[0]:
            rows = row.topk(min(most, row.shape[1]), dim=1).indices
            gradient = step.at_input(rows)
    return row


@dataclass(frozen=True, slots=True)
class _Step:
    """The gradient in a block, back to its attention, for R rows of it."""

    trace: BlockTrace
    rows: Tensor  # (B, R)
    residual: Tensor  # (B, R, D) gradient between attention and MLP
    at_mixed: Tensor  # (B, H, R, E) gradient at the output of the attention
    at_gate: Tensor | None  # (B, R, H * E)
    attention: Tensor  # (B, H, R, T)
    gradient: Tensor  # (B, H, R, T) of the attention

    @classmethod
    def back(cls, trace: BlockTrace, rows: Tensor, gradient: Tensor) -> _Step:
        block, heads = trace.block, trace.q.shape[1]
        residual = gradient + pull_back_chain(_mlp(block), _all_take(trace.after_mlp, rows), gradient)
        norm, *rest = _out(block)
        mixed, *inputs = _all_take(trace.after_attention, rows)
        at_out, at_gate = pull_back_chain(rest, inputs, residual), None
        if trace.gate is not None:
            gate = take(trace.gate, rows).sigmoid()
            at_gate = at_out * norm(mixed) * gate * (1 - gate)
            at_out = at_out * gate
        at_mixed = _split(pull_back(norm, mixed, at_out), heads)
        scaled = _take_heads(trace.q, rows) * block.attn.scale
        attention = (scaled @ trace.k.transpose(-2, -1)).softmax(-1)
        return cls(trace, rows, residual, at_mixed, at_gate, attention, at_mixed @ trace.v.transpose(-2, -1))

    @property
    def relevance(self) -> Tensor:
        """(B, R, T)"""
        return (self.attention * self.gradient).clamp_min(0).mean(1)

    def at_input(self, chosen: Tensor) -> Tensor:
        """The gradient (B, K, D) at the input of the block for the chosen tokens (B, K)."""
        trace, block = self.trace, self.trace.block
        attention = block.attn
        product = self.attention * self.gradient
        at_scores = product - self.attention * product.sum(-1, keepdim=True)
        columns = chosen[:, None, None].expand(-1, product.shape[1], product.shape[2], -1)
        at_k = at_scores.gather(-1, columns).transpose(-2, -1) @ _take_heads(trace.q, self.rows) * attention.scale
        at_v = self.attention.gather(-1, columns).transpose(-2, -1) @ self.at_mixed
        at_k = pull_back(attention.k_norm, _take_heads(trace.raw_k, chosen), at_k)
        at_q = at_scores @ trace.k * attention.scale  # (B, H, R, E)
        at_q = pull_back(attention.q_norm, _take_heads(trace.raw_q, self.rows), at_q)
        weight_q, weight_k, weight_v = attention.qkv.weight.chunk(3)
        at_rows = _join(at_q) @ weight_q
        if self.at_gate is not None:
            at_rows = at_rows + pull_back(attention.gate, take(trace.normed, self.rows), self.at_gate)
        # Rows of the two sets that are the same token: queries, gate and residual sum belong to `rows` alone.
        same = (chosen[:, :, None] == self.rows[:, None]).to(at_rows.dtype)  # (B, K, R)
        at_normed = _join(at_k) @ weight_k + _join(at_v) @ weight_v + same @ at_rows
        return pull_back(block.norm1, take(trace.tokens, chosen), at_normed) + same @ self.residual


def _split(values: Tensor, heads: int) -> Tensor:
    """(B, K, H * E) to (B, H, K, E)."""
    return values.reshape(values.shape[0], values.shape[1], heads, -1).transpose(1, 2)


def _join(heads: Tensor) -> Tensor:
    """(B, H, K, E) to (B, K, H * E)."""
    return heads.transpose(1, 2).flatten(2)


def take(values: Tensor, rows: Tensor) -> Tensor:
    """Rows (B, K) of (B, T) or (B, T, D)."""
    if values.ndim == 3:
        rows = rows[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, rows)


def _all_take(values: list[Tensor], rows: Tensor) -> list[Tensor]:
    return [take(value, rows) for value in values]


def _take_heads(values: Tensor, rows: Tensor) -> Tensor:
    """Rows (B, K) of (B, H, T, E)."""
    return values.gather(2, rows[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[-1]))
