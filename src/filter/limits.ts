/** What a filter may cost whoever compiles it. Filters come from other processes. */
export const FILTER_LIMITS = {
  /** Boxes of one filter. */
  boxesMax: 64,
  /** Boxes while an expression is worked out: a part may need more than the whole. */
  partialBoxesMax: 512,
  /** Work of the algebra for one expression, or one operation: boxes looked at, slab by slab. Some 50 ms at most. */
  workMax: 1_500_000,
  /** Characters of an expression. Canonical text of `boxesMax` boxes fits. */
  textMax: 16_384,
  /** Parentheses and `not` inside each other. */
  depthMax: 32,
} as const;
