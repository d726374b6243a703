"""Attributions without a backward pass: every direct path between decomposed matrices has a known Jacobian.

Read as forward mode: a source component s at position q, whose weight w_s[q] is its activation times its causal
importance, moves every target y_t[p] by w_s[q] d y_t[p] / d a_s[q]. Summed as it is, that is `attr`; multiplied by
sign(y_t[p]), `attr_abs`. One sweep over the non-zero weights serves all targets and both metrics.
"""
