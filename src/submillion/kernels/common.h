// Code that all kernels share: bfloat16 conversion, elementary functions, keyed dropout masks and the register tile.
//
// Terms: N tokens, K inner length, O output columns. A "pair" is two bfloat16 values of neighbouring inner positions in
// one 32-bit word, the unit that VDPBF16PS multiplies. A "quad" is four 8-bit values, the unit of VPDPBUSD.
#pragma once

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace submillion {

using bf16 = uint16_t;

constexpr int64_t kVector = 16;       // float32 lanes of a register
constexpr int64_t kPanel = 64;        // columns of a packed weight's panel: four registers
constexpr int kRows = 6;              // rows of a tile: 6 x 4 accumulators leave registers for the operands
constexpr int64_t kBlock = 16 * kRows;  // rows that pass through a product together and stay in the L2 cache

#define SUBMILLION_INLINE inline __attribute__((always_inline))

SUBMILLION_INLINE __m512 load_bf16(const bf16* p) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}

SUBMILLION_INLINE void store_bf16(bf16* p, __m512 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}

// Rounds both to bfloat16, with `low` in the first 16 elements and `high` in the others.
SUBMILLION_INLINE __m512i join_bf16(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// Puts the first 16 elements into the low halves of the lanes and the others into the high halves.
SUBMILLION_INLINE __m512i interleave_halves(__m512i joined) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, joined);
}

SUBMILLION_INLINE bf16 to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<bf16>((bits >> 16) | 0x40);
  return static_cast<bf16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// 2^x for finite x, relative error at most 2.7e-6: 2^n times a polynomial on [-1/2, 1/2], fitted by iteratively
// reweighted least squares. The error is far below the bfloat16 rounding of a softmax's weights.
SUBMILLION_INLINE __m512 exp2_ps(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, 8);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(9.570036535e-03f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.591771698e-02f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402474497e-01f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931218328e-01f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.999992619e-01f));
  return _mm512_scalef_ps(p, n);
}

constexpr float kLog2E = 1.44269504f;

SUBMILLION_INLINE __m512 reciprocal(__m512 x) {
  const __m512 r = _mm512_rcp14_ps(x);
  return _mm512_mul_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(2.0f)));
}

// x P(x^2) / Q(x^2) for |x| <= 6, beyond which both curves below are at their limits. They are odd functions that end
// at 1/2, fitted by iteratively reweighted least squares. Coefficients are in ascending powers.
SUBMILLION_INLINE __m512 numerator(__m512 u, float p0, float p1, float p2, float p3) {
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(p3), u, _mm512_set1_ps(p2));
  p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(p1));
  return _mm512_fmadd_ps(p, u, _mm512_set1_ps(p0));
}

SUBMILLION_INLINE __m512 denominator(__m512 u, float q1, float q2, float q3, float q4) {
  return _mm512_fmadd_ps(numerator(u, q1, q2, q3, q4), u, _mm512_set1_ps(1.0f));
}

SUBMILLION_INLINE __m512 clamp_to_six(__m512 x) {
  return _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-6.0f)), _mm512_set1_ps(6.0f));
}

// Below -6, gelu is zero except for its sign. Without the floor, the curve's error would grow with x.
SUBMILLION_INLINE __m512 floor_at_six(__m512 x) { return _mm512_max_ps(x, _mm512_set1_ps(-6.0f)); }

// The normal distribution function less 1/2; absolute error at most 2.4e-6, far below bfloat16's.
constexpr float kCdf[8] = {3.98954423e-01f, 3.05372823e-02f, 4.46407256e-03f, 7.03184565e-05f,
                           2.43346576e-01f, 2.65796978e-02f, 1.59465145e-03f, 4.86166715e-06f};
// The derivative of gelu less 1/2; absolute error at most 8.3e-5, a fiftieth of bfloat16's step there.
constexpr float kSlope[8] = {7.98341645e-01f, -2.97801775e-02f, 1.46247289e-02f, 1.25331213e-04f,
                             2.98867448e-01f, 3.89407361e-02f, 5.18227005e-03f, -5.79350716e-06f};

SUBMILLION_INLINE __m512 gelu(__m512 x) {
  const __m512 c = clamp_to_six(x), u = _mm512_mul_ps(c, c);
  const __m512 p = numerator(u, kCdf[0], kCdf[1], kCdf[2], kCdf[3]);
  const __m512 q = denominator(u, kCdf[4], kCdf[5], kCdf[6], kCdf[7]);
  const __m512 ratio = _mm512_mul_ps(_mm512_mul_ps(c, p), reciprocal(q));
  return _mm512_mul_ps(floor_at_six(x), _mm512_add_ps(ratio, _mm512_set1_ps(0.5f)));
}

SUBMILLION_INLINE __m512 gelu(__m512 x, __m512& slope) {
  const __m512 c = clamp_to_six(x), u = _mm512_mul_ps(c, c);
  const __m512 p = numerator(u, kCdf[0], kCdf[1], kCdf[2], kCdf[3]);
  const __m512 q = denominator(u, kCdf[4], kCdf[5], kCdf[6], kCdf[7]);
  const __m512 slope_p = numerator(u, kSlope[0], kSlope[1], kSlope[2], kSlope[3]);
  const __m512 slope_q = denominator(u, kSlope[4], kSlope[5], kSlope[6], kSlope[7]);
  // One division serves both.
  const __m512 inverse = _mm512_mul_ps(c, reciprocal(_mm512_mul_ps(q, slope_q)));
  const __m512 half = _mm512_set1_ps(0.5f);
  slope = _mm512_fmadd_ps(_mm512_mul_ps(slope_p, q), inverse, half);
  return _mm512_mul_ps(floor_at_six(x), _mm512_fmadd_ps(_mm512_mul_ps(p, slope_q), inverse, half));
}

// The 32-bit hash of submillion.model.dropout.keep_mask, lane by lane: each word decides on two neighbouring columns.
SUBMILLION_INLINE __m512i hash_lanes(__m512i row_keys, __m512i pair_keys) {
  __m512i lanes = _mm512_xor_si512(row_keys, pair_keys);
  lanes = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int>(0x85EBCA6Bu)));
  lanes = _mm512_xor_si512(lanes, _mm512_srai_epi32(lanes, 13));
  lanes = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int>(0xC2B2AE35u)));
  return _mm512_xor_si512(lanes, _mm512_srli_epi32(lanes, 16));
}

// Dropout of one site over rows of columns; `probability` 0 means none.
struct Dropout {
  const int32_t* row_keys;   // (N,)
  const int32_t* pair_keys;  // one per pair of columns
  float probability;

  SUBMILLION_INLINE float keep_scale() const { return 1.0f / (1.0f - probability); }
  SUBMILLION_INLINE int16_t threshold() const {
    return static_cast<int16_t>(static_cast<int>(std::nearbyint(probability * 65536.0f)) - 32768);
  }
  // Keep mask of 32 columns that start at an even column.
  SUBMILLION_INLINE __mmask32 keep(int64_t row, int64_t column) const {
    const __m512i lanes =
        hash_lanes(_mm512_set1_epi32(row_keys[row]), _mm512_loadu_si512(pair_keys + column / 2));
    return _mm512_cmpge_epi16_mask(lanes, _mm512_set1_epi16(threshold()));
  }
};

// Scratch memory of one thread, kept between calls and grown as needed.
template <typename T>
class Scratch {
 public:
  T* reserve(int64_t count) {
    if (count > size_) {
      std::free(data_);
      data_ = static_cast<T*>(std::aligned_alloc(64, ((count * sizeof(T) + 63) / 64) * 64));
      size_ = count;
    }
    return data_;
  }
  ~Scratch() { std::free(data_); }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// The rows of this thread, in equal shares of whole tiles.
struct Share {
  int64_t begin, end;
};

SUBMILLION_INLINE Share share_rows(int64_t num_rows) {
  const int64_t tiles = (num_rows + kRows - 1) / kRows;
  const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
  return {std::min(num_rows, tiles * thread / threads * kRows),
          std::min(num_rows, tiles * (thread + 1) / threads * kRows)};
}

// Left operand of a product: 32-bit words at rows[i] + k * step.
struct Left {
  const uint32_t* data;
  int64_t row_stride;
  int64_t step;
};

// acc[i][j] += left[row i] * right, over `count` inner words; rows beyond `valid` repeat the last valid one, so that
// nothing outside the operand is read. Dot multiplies one word per lane.
template <int NV, class Dot, typename Acc>
SUBMILLION_INLINE void multiply_tile(Left left, int valid, const uint32_t* right, int64_t right_stride, int64_t count,
                                     Acc (&acc)[kRows][NV]) {
  int64_t offsets[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) offsets[i] = std::min(i, valid - 1) * left.row_stride;
  for (int64_t k = 0; k < count; ++k) {
    __m512i columns[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) columns[j] = _mm512_loadu_si512(right + k * right_stride + j * kVector);
    const uint32_t* words = left.data + k * left.step;
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const __m512i word = _mm512_set1_epi32(static_cast<int>(words[offsets[i]]));
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = Dot::multiply(acc[i][j], word, columns[j]);
    }
  }
}

// This is assembly, since compilers copy the accumulators of these intrinsics to and from the stack.
struct DotBf16 {
  static SUBMILLION_INLINE __m512 multiply(__m512 acc, __m512i left, __m512i right) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(left), "v"(right));
    return acc;
  }
};

struct DotInt8 {
  static SUBMILLION_INLINE __m512i multiply(__m512i acc, __m512i left, __m512i right) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(left), "v"(right));
    return acc;
  }
};

}  // namespace submillion
