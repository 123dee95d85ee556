// Products of token rows with packed weights, and the epilogues that process results while they are in registers.
//
// A packed weight is a sequence of panels of up to 64 columns. Panel p begins at word p * 64 * K' and holds K' rows of
// its columns' words, where K' counts inner words (pairs of bfloat16 or quads of int8). Columns are padded to whole
// registers.
#pragma once

#include "common.h"

namespace submillion {

struct Weight {
  const uint32_t* packed;
  int64_t words;    // K'
  int64_t columns;  // O, a multiple of 16

  SUBMILLION_INLINE int64_t num_panels() const { return (columns + kPanel - 1) / kPanel; }
  SUBMILLION_INLINE const uint32_t* panel(int64_t index) const { return packed + index * kPanel * words; }
};

// A low-rank term added to a product: pairs [begin[p], end[p]) of the second operands serve panel p.
struct LowRank {
  const bf16* low;  // (N, stride)
  int64_t stride;
  Weight weight;
  const int32_t* begin;
  const int32_t* end;
};

// Prefetches the cache lines of a panel's columns in one row. Results are written once and far apart, and a store that
// misses the cache would delay the next tile.
SUBMILLION_INLINE void fetch_panel(const bf16* row) {
  __builtin_prefetch(row, 1);
  __builtin_prefetch(row + kPanel / 2, 1);
}

// Each epilogue takes 16 finished columns of a row. Before that, a call announces which panel of a row comes next.
struct StorePlain {
  bf16* out;
  int64_t stride;
  const float* bias;  // may be null
  const bf16* term;   // added, with the layout of out; may be null

  SUBMILLION_INLINE void fetch(int64_t row, int64_t column) const {
    fetch_panel(out + row * stride + column);
    if (term) fetch_panel(term + row * stride + column);
  }
  SUBMILLION_INLINE void operator()(int64_t row, int64_t column, __m512 v) const {
    if (bias) v = _mm512_add_ps(v, _mm512_loadu_ps(bias + column));
    if (term) v = _mm512_add_ps(v, load_bf16(term + row * stride + column));
    store_bf16(out + row * stride + column, v);
  }
};

struct StoreGelu {
  bf16* slope;  // the derivative, for the backward pass; may be null
  bf16* out;
  int64_t first_row;  // first row of out
  int64_t stride;
  const float* bias;

  SUBMILLION_INLINE void fetch(int64_t row, int64_t column) const {
    fetch_panel(out + (row - first_row) * stride + column);
    if (slope) fetch_panel(slope + row * stride + column);
  }
  SUBMILLION_INLINE void operator()(int64_t row, int64_t column, __m512 v) const {
    v = _mm512_add_ps(v, _mm512_loadu_ps(bias + column));
    if (slope) {
      __m512 derivative;
      store_bf16(out + (row - first_row) * stride + column, gelu(v, derivative));
      store_bf16(slope + row * stride + column, derivative);
    } else {
      store_bf16(out + (row - first_row) * stride + column, gelu(v));
    }
  }
};

struct StoreProduct {
  const bf16* factor;
  bf16* out;
  int64_t first_row;  // first row of out
  int64_t stride;

  SUBMILLION_INLINE void fetch(int64_t row, int64_t column) const {
    fetch_panel(out + (row - first_row) * stride + column);
    fetch_panel(factor + row * stride + column);
  }
  SUBMILLION_INLINE void operator()(int64_t row, int64_t column, __m512 v) const {
    store_bf16(out + (row - first_row) * stride + column, _mm512_mul_ps(v, load_bf16(factor + row * stride + column)));
  }
};

// Keeps the rows of a block in float32 for a reduction over whole rows.
struct StoreBlock {
  float* out;
  int64_t stride;
  int64_t first_row;
  const float* bias;

  SUBMILLION_INLINE void fetch(int64_t, int64_t) const {}
  SUBMILLION_INLINE void operator()(int64_t row, int64_t column, __m512 v) const {
    _mm512_storeu_ps(out + (row - first_row) * stride + column, _mm512_add_ps(v, _mm512_loadu_ps(bias + column)));
  }
};

template <int NV, class Epilogue>
void finish_tile_bf16(Left left, int64_t row, int valid, const Weight& weight, int64_t panel, const LowRank* low_rank,
                      const Epilogue& epilogue) {
  __m512 acc[kRows][NV];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_setzero_ps();
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) epilogue.fetch(row + std::min(i, valid - 1), panel * kPanel);
  multiply_tile<NV, DotBf16>(left, valid, weight.panel(panel), NV * kVector, weight.words, acc);
  if (low_rank) {
    const int64_t begin = low_rank->begin[panel], count = low_rank->end[panel] - begin;
    const Left low = {reinterpret_cast<const uint32_t*>(low_rank->low + row * low_rank->stride) + begin,
                      low_rank->stride / 2, 1};
    multiply_tile<NV, DotBf16>(low, valid, low_rank->weight.panel(panel) + begin * NV * kVector, NV * kVector, count,
                               acc);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    if (i >= valid) break;
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) epilogue(row + i, panel * kPanel + j * kVector, acc[i][j]);
  }
}

// Computes rows [begin, end) of x W, at most one block.
template <class Epilogue>
void multiply_block(const bf16* x, int64_t stride, int64_t begin, int64_t end, const Weight& weight,
                    const LowRank* low_rank, const Epilogue& epilogue) {
  for (int64_t panel = 0; panel < weight.num_panels(); ++panel) {
    const int64_t vectors = std::min(kPanel, weight.columns - panel * kPanel) / kVector;
    for (int64_t row = begin; row < end; row += kRows) {
      const int valid = static_cast<int>(std::min<int64_t>(kRows, end - row));
      const Left left = {reinterpret_cast<const uint32_t*>(x + row * stride), stride / 2, 1};
      switch (vectors) {
        case 4: finish_tile_bf16<4>(left, row, valid, weight, panel, low_rank, epilogue); break;
        case 3: finish_tile_bf16<3>(left, row, valid, weight, panel, low_rank, epilogue); break;
        case 2: finish_tile_bf16<2>(left, row, valid, weight, panel, low_rank, epilogue); break;
        default: finish_tile_bf16<1>(left, row, valid, weight, panel, low_rank, epilogue);
      }
    }
  }
}

// An int8 weight: w = scales[o] * q, with the column sums that an activation's zero point is multiplied by.
struct Int8Weight {
  Weight weight;
  const float* scales;
  const float* sums;
};

// A block of rows as unsigned 8-bit integers: x = scale * (q - zero).
struct QuantisedBlock {
  uint8_t* values;  // (rows, stride), stride a multiple of 4
  float* scales;
  float* zeros;
  int64_t stride;
};

template <int NV, class Epilogue>
void finish_tile_int8(const QuantisedBlock& block, int64_t offset, int64_t row, int valid, const Int8Weight& weight,
                      int64_t panel, const Epilogue& epilogue) {
  __m512i acc[kRows][NV];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) epilogue.fetch(row + std::min(i, valid - 1), panel * kPanel);
  const Left left = {reinterpret_cast<const uint32_t*>(block.values + offset * block.stride), block.stride / 4, 1};
  multiply_tile<NV, DotInt8>(left, valid, weight.weight.panel(panel), NV * kVector, weight.weight.words, acc);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    if (i >= valid) break;
    const __m512 scale = _mm512_set1_ps(block.scales[offset + i]), zero = _mm512_set1_ps(block.zeros[offset + i]);
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) {
      const int64_t column = panel * kPanel + j * kVector;
      __m512 v = _mm512_fnmadd_ps(zero, _mm512_loadu_ps(weight.sums + column), _mm512_cvtepi32_ps(acc[i][j]));
      v = _mm512_mul_ps(v, _mm512_mul_ps(scale, _mm512_loadu_ps(weight.scales + column)));
      epilogue(row + i, column, v);
    }
  }
}

template <class Epilogue>
void multiply_block_int8(const QuantisedBlock& block, int64_t begin, int64_t end, const Int8Weight& weight,
                         const Epilogue& epilogue) {
  for (int64_t panel = 0; panel < weight.weight.num_panels(); ++panel) {
    const int64_t vectors = std::min(kPanel, weight.weight.columns - panel * kPanel) / kVector;
    for (int64_t row = begin; row < end; row += kRows) {
      const int valid = static_cast<int>(std::min<int64_t>(kRows, end - row));
      switch (vectors) {
        case 4: finish_tile_int8<4>(block, row - begin, row, valid, weight, panel, epilogue); break;
        case 3: finish_tile_int8<3>(block, row - begin, row, valid, weight, panel, epilogue); break;
        case 2: finish_tile_int8<2>(block, row - begin, row, valid, weight, panel, epilogue); break;
        default: finish_tile_int8<1>(block, row - begin, row, valid, weight, panel, epilogue);
      }
    }
  }
}

// Quantises rows [begin, end), each by its own range, which always includes zero.
inline void quantise_block(const bf16* x, int64_t stride, int64_t begin, int64_t end, int64_t columns,
                           const QuantisedBlock& block) {
  for (int64_t row = begin; row < end; ++row) {
    const bf16* source = x + row * stride;
    __m512 low = _mm512_setzero_ps(), high = _mm512_setzero_ps();
    for (int64_t c = 0; c < columns; c += kVector) {
      const __m512 v = load_bf16(source + c);
      low = _mm512_min_ps(low, v);
      high = _mm512_max_ps(high, v);
    }
    const float least = _mm512_reduce_min_ps(low), greatest = _mm512_reduce_max_ps(high);
    const float scale = std::max((greatest - least) / 255.0f, 1e-20f);
    const float zero = std::nearbyint(-least / scale);
    block.scales[row - begin] = scale;
    block.zeros[row - begin] = zero;
    uint8_t* target = block.values + (row - begin) * block.stride;
    const __m512 inverse = _mm512_set1_ps(1.0f / scale), shift = _mm512_set1_ps(zero);
    for (int64_t c = 0; c < columns; c += kVector) {
      const __m512i q = _mm512_cvtps_epi32(_mm512_fmadd_ps(load_bf16(source + c), inverse, shift));
      // Values are in [0, 255] up to rounding; negative ones would wrap in an unsigned saturation.
      _mm_storeu_si128(reinterpret_cast<__m128i*>(target + c),
                       _mm512_cvtusepi32_epi8(_mm512_max_epi32(q, _mm512_setzero_si512())));
    }
  }
}

}  // namespace submillion
