/** What a filter may cost whoever compiles it. Filters come from other processes. */
export const FILTER_LIMITS = {
  /** Boxes of one filter. */
  boxesMax: 64,
  /** Boxes while an expression is worked out: a part may need more than the whole. */
  partialBoxesMax: 1024,
  /** Steps of the algebra for one expression; a step looks at one slab of one dimension. */
  stepsMax: 200_000,
  /** Characters of an expression. Canonical text of `boxesMax` boxes fits. */
  textMax: 16_384,
  /** Parentheses and `not` inside each other. */
  depthMax: 32,
} as const;
