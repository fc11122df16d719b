// The micro-kernel: one tile of a matrix product, held in registers.
//
//         B panel: k rows of nr              C tile: mr rows of nr, row-major, dense
//         +----------------+
//         | k = 0: b0..b15 |                 sum[i][j] = sum over k of a[k][i] * b[k][j]
//         | k = 1: ...     |                 c[i][j] = sum, or c[i][j] + sum when accumulate
//         +----------------+
//   A panel: k rows of mr                    The sum runs over k upwards from zero, one fused
//   a[k][0..mr)                              multiply-add a term, whatever c held: so the bits
//                                            depend neither on mr, nr nor the tile's place, and
//                                            the rounding of a long sum grows with its pieces.
//
// Panels are packed, zero-padded to full width; a tile is always computed whole. Panels and tile
// are aligned to kAlignment. What part of a tile is real only its store knows (gemm.h).
#pragma once

#include <cstdint>

namespace pydenoise::cpu {

constexpr int64_t kAlignment = 64;

template <class T>
struct Ukernel {
  int64_t mr, nr;
  int64_t cost;  // instructions a step of k: multiply-adds, loads, broadcasts
  void (*run)(T* c, const T* a, const T* b, int64_t k, bool accumulate);
};

}  // namespace pydenoise::cpu
