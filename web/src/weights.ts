/** Weights of joints with the zeros left out: most things hang on one joint only. */
export interface SparseWeights {
  /** `per` joints for each row, those with weight first. */
  joints: Uint8Array;
  /** Their weights; a zero ends a row. */
  weights: Float32Array;
  per: number;
}

/** Take (N, J) weights apart. */
export function sparseWeights(weights: Float32Array, numJoints: number): SparseWeights {
  const count = weights.length / numJoints;
  let per = 1;
  for (let row = 0; row < count; row++) {
    let used = 0;
    for (let j = 0; j < numJoints; j++) used += weights[row * numJoints + j] !== 0 ? 1 : 0;
    per = Math.max(per, used);
  }
  const joints = new Uint8Array(count * per);
  const kept = new Float32Array(count * per);
  for (let row = 0; row < count; row++) {
    let slot = row * per;
    for (let j = 0; j < numJoints; j++) {
      const weight = weights[row * numJoints + j]!;
      if (weight === 0) continue;
      joints[slot] = j;
      kept[slot++] = weight;
    }
  }
  return { joints, weights: kept, per };
}
