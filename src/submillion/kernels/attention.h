// softmax(q k^T scaling + bias) v within records, forward and backward, with one task for each record and head. The
// bias, if any, depends only on the distance between query and key.
//
// Keys are rows and queries are columns, so that the softmax's maxima and sums run over registers and not across them.
// The backward pass recomputes the weights from two numbers per query (Dao et al., "FlashAttention", arXiv 2205.14135,
// algorithm 4). Weights and their gradients enter products as bfloat16.
#pragma once

#include "common.h"

#include <cmath>

namespace submillion {

constexpr int64_t kQueries = 64;  // queries per pass over all keys of a record

struct AttentionShape {
  int64_t head_size;
  int64_t stride;  // stride of a token in q, k and v
  float scaling;
  float dropout;  // probability; masks are keyed by the query's token and the head's pair of keys
};

// Scores of one key and 16 queries, as exponents of 2. `bias` points at the first query's entry for the first key; the
// entry for key `row` is `row` places before it.
SUBMILLION_INLINE __m512 add_bias(__m512 products, __m512 binary_scaling, const float* bias, int64_t row) {
  return _mm512_fmadd_ps(products, binary_scaling, _mm512_loadu_ps(bias - row));
}

struct AttentionScratch {
  Scratch<float> scores, gradients, value_sums, key_sums;
  Scratch<uint32_t> query_columns, gradient_columns, query_pairs, gradient_pairs, key_pairs, value_pairs;
  Scratch<uint32_t> weight_pairs, score_pairs;
  Scratch<bf16> weight_rows, score_rows;
};

// out[k][i] = word k of row i, for 16 rows (those beyond `valid` are zero): rows become columns.
SUBMILLION_INLINE void transpose_words(const bf16* source, int64_t stride, int64_t valid, int64_t words, uint32_t* out,
                                       int64_t out_stride) {
  for (int64_t first = 0; first < words; first += 16) {
    __m512i r[16], t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      r[i] = i < valid ? _mm512_loadu_si512(source + i * stride + 2 * first) : _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
      r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
      r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
      r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
      t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
      t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
      t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      uint32_t* row = out + (first + i) * out_stride;
      _mm512_storeu_si512(row, _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88));
      _mm512_storeu_si512(row + 4 * out_stride, _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88));
      _mm512_storeu_si512(row + 8 * out_stride, _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd));
      _mm512_storeu_si512(row + 12 * out_stride, _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd));
    }
  }
}

// Prefetches the head's part of all rows. A token's heads lie side by side, so the rows of one head are far apart.
SUBMILLION_INLINE void fetch_rows(const bf16* first, int64_t stride, int64_t rows, int64_t columns) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t c = 0; c < columns; c += 32) __builtin_prefetch(first + row * stride + c);
}

// out[i][c] = the pair (row 2i, row 2i + 1) of column c; a missing last row is zero.
SUBMILLION_INLINE void pair_rows(const bf16* source, int64_t stride, int64_t rows, int64_t padded_rows, int64_t columns,
                                 uint32_t* out) {
  for (int64_t i = 0; i < padded_rows / 2; ++i) {
    for (int64_t c = 0; c < columns; c += kVector) {
      __m512i words = _mm512_setzero_si512();
      if (2 * i < rows)
        words = _mm512_cvtepu16_epi32(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + 2 * i * stride + c)));
      if (2 * i + 1 < rows)
        words = _mm512_or_si512(
            words, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
                                         reinterpret_cast<const __m256i*>(source + (2 * i + 1) * stride + c))),
                                     16));
      _mm512_storeu_si512(out + i * columns + c, words);
    }
  }
}

// out[rows][NV * 16] (+)= left * right, in float32.
template <int NV>
SUBMILLION_INLINE void multiply_small(Left left, int64_t rows, const uint32_t* right, int64_t right_stride,
                                      int64_t count, float* out, int64_t out_stride, bool accumulate) {
  for (int64_t row = 0; row < rows; row += kRows) {
    const int valid = static_cast<int>(std::min<int64_t>(kRows, rows - row));
    __m512 acc[kRows][NV];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j)
        acc[i][j] = accumulate && i < valid ? _mm512_loadu_ps(out + (row + i) * out_stride + j * kVector)
                                            : _mm512_setzero_ps();
    const Left tile = {left.data + row * left.row_stride, left.row_stride, left.step};
    multiply_tile<NV, DotBf16>(tile, valid, right, right_stride, count, acc);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      if (i >= valid) break;
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) _mm512_storeu_ps(out + (row + i) * out_stride + j * kVector, acc[i][j]);
    }
  }
}

SUBMILLION_INLINE void multiply_any(int64_t vectors, Left left, int64_t rows, const uint32_t* right,
                                    int64_t right_stride, int64_t count, float* out, int64_t out_stride,
                                    bool accumulate) {
  while (vectors > 0) {
    switch (std::min<int64_t>(vectors, 4)) {
      case 4: multiply_small<4>(left, rows, right, right_stride, count, out, out_stride, accumulate); break;
      case 3: multiply_small<3>(left, rows, right, right_stride, count, out, out_stride, accumulate); break;
      case 2: multiply_small<2>(left, rows, right, right_stride, count, out, out_stride, accumulate); break;
      default: multiply_small<1>(left, rows, right, right_stride, count, out, out_stride, accumulate);
    }
    vectors -= 4;
    right += kPanel;
    out += kPanel;
  }
}

// The keep factors of two keys (2p, 2p + 1) for 16 queries: 0 or 1 / (1 - probability).
struct KeepPair {
  __m512 even, odd;
};

SUBMILLION_INLINE KeepPair keep_pair(__m512i row_keys, int32_t pair_key, float probability) {
  const __m512i lanes = hash_lanes(row_keys, _mm512_set1_epi32(pair_key));
  const __m512i threshold =
      _mm512_set1_epi32(static_cast<int>(std::nearbyint(probability * 65536.0f)) - 32768);
  const __m512 scale = _mm512_set1_ps(1.0f / (1.0f - probability));
  const __mmask16 even = _mm512_cmpge_epi32_mask(_mm512_srai_epi32(_mm512_slli_epi32(lanes, 16), 16), threshold);
  const __mmask16 odd = _mm512_cmpge_epi32_mask(_mm512_srai_epi32(lanes, 16), threshold);
  return {_mm512_maskz_mov_ps(even, scale), _mm512_maskz_mov_ps(odd, scale)};
}

SUBMILLION_INLINE __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << std::max<int64_t>(count, 0)) - 1);
}

// Stores two rows of a scratch array at once.
SUBMILLION_INLINE void store_halves(bf16* first, __m512i joined) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(first), _mm512_castsi512_si256(joined));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(first + kQueries), _mm512_extracti64x4_epi64(joined, 1));
}

// Attends for one record and head. Mask keys are read only if something is dropped. `bias` is the head's entry for
// distance 0, times log2(e), or null. `maxima` and `inverses` (of the sums) have one number per token of this head;
// they are null if no backward pass follows.
inline void attend_record(const bf16* q, const bf16* k, const bf16* v, bf16* out, int64_t out_stride, int64_t length,
                          const AttentionShape& shape, const int32_t* row_keys, const int32_t* pair_keys,
                          const float* bias, float* maxima, float* inverses, AttentionScratch& scratch) {
  const int64_t size = shape.head_size, words = size / 2, pairs = (length + 1) / 2;
  for (const bf16* rows : {v, k, q}) fetch_rows(rows, shape.stride, length, size);
  uint32_t* value_pairs = scratch.value_pairs.reserve(pairs * size);
  pair_rows(v, shape.stride, length, 2 * pairs, size, value_pairs);
  const Left keys = {reinterpret_cast<const uint32_t*>(k), shape.stride / 2, 1};
  float* scores = scratch.scores.reserve((length + 1) * kQueries);
  uint32_t* weights = scratch.weight_pairs.reserve(pairs * kQueries);
  uint32_t* columns = scratch.query_columns.reserve(words * kQueries);
  float* sums = scratch.value_sums.reserve(kQueries * size);
  const __m512 scaling = _mm512_set1_ps(shape.scaling * kLog2E);  // weights are powers of 2
  for (int64_t first = 0; first < length; first += kQueries) {
    const int64_t count = std::min(kQueries, length - first), vectors = (count + kVector - 1) / kVector;
    for (int64_t j = 0; j < vectors; ++j)
      transpose_words(q + (first + j * kVector) * shape.stride, shape.stride, count - j * kVector, words,
                      columns + j * kVector, kQueries);
    multiply_any(vectors, keys, length, columns, kQueries, words, scores, kQueries, false);
    float inverse[kQueries];
    for (int64_t j = 0; j < vectors; ++j) {
      float* column = scores + j * kVector;
      __m512 maximum, factor = scaling;
      if (bias) {
        const float* entry = bias + first + j * kVector;
        maximum = _mm512_set1_ps(-INFINITY);
        for (int64_t row = 0; row < length; ++row) {
          const __m512 score = add_bias(_mm512_loadu_ps(column + row * kQueries), scaling, entry, row);
          _mm512_storeu_ps(column + row * kQueries, score);
          maximum = _mm512_max_ps(maximum, score);
        }
        factor = _mm512_set1_ps(1.0f);
      } else {
        maximum = _mm512_loadu_ps(column);
        for (int64_t row = 1; row < length; ++row)
          maximum = _mm512_max_ps(maximum, _mm512_loadu_ps(column + row * kQueries));
        maximum = _mm512_mul_ps(maximum, scaling);
      }
      __m512i row_key = _mm512_setzero_si512();
      if (shape.dropout > 0.0f)
        row_key = _mm512_maskz_loadu_epi32(first_lanes(count - j * kVector), row_keys + first + j * kVector);
      __m512 sum = _mm512_setzero_ps();
      for (int64_t pair = 0; pair < pairs; ++pair) {
        const float* source = column + 2 * pair * kQueries;
        __m512 even = exp2_ps(_mm512_fmsub_ps(_mm512_loadu_ps(source), factor, maximum));
        __m512 odd = _mm512_setzero_ps();
        if (2 * pair + 1 < length)
          odd = exp2_ps(_mm512_fmsub_ps(_mm512_loadu_ps(source + kQueries), factor, maximum));
        sum = _mm512_add_ps(sum, _mm512_add_ps(even, odd));
        if (shape.dropout > 0.0f) {
          const KeepPair keep = keep_pair(row_key, pair_keys[pair], shape.dropout);
          even = _mm512_mul_ps(even, keep.even);
          odd = _mm512_mul_ps(odd, keep.odd);
        }
        _mm512_storeu_si512(weights + pair * kQueries + j * kVector, interleave_halves(join_bf16(even, odd)));
      }
      const __m512 inverted = _mm512_div_ps(_mm512_set1_ps(1.0f), sum);
      _mm512_storeu_ps(inverse + j * kVector, inverted);
      if (maxima) {
        const __mmask16 lanes = first_lanes(count - j * kVector);
        _mm512_mask_storeu_ps(maxima + first + j * kVector, lanes, maximum);
        _mm512_mask_storeu_ps(inverses + first + j * kVector, lanes, inverted);
      }
    }
    multiply_any(size / kVector, {weights, 1, kQueries}, count, value_pairs, size, pairs, sums, size, false);
    for (int64_t row = 0; row < count; ++row) {
      const __m512 factor = _mm512_set1_ps(inverse[row]);
      for (int64_t c = 0; c < size; c += kVector)
        store_bf16(out + (first + row) * out_stride + c, _mm512_mul_ps(_mm512_loadu_ps(sums + row * size + c), factor));
    }
  }
}

// Computes the gradients for one record and head; grad_q, grad_k and grad_v have the stride of q.
inline void attend_record_backward(const bf16* q, const bf16* k, const bf16* v, const bf16* out, const bf16* grad,
                                   int64_t out_stride, int64_t length, const AttentionShape& shape,
                                   const int32_t* row_keys, const int32_t* pair_keys, const float* bias,
                                   const float* maxima, const float* inverses, bf16* grad_q, bf16* grad_k,
                                   bf16* grad_v, AttentionScratch& scratch) {
  const int64_t size = shape.head_size, words = size / 2, pairs = (length + 1) / 2;
  for (const bf16* rows : {k, q, v}) fetch_rows(rows, shape.stride, length, size);
  for (const bf16* rows : {out, grad}) fetch_rows(rows, out_stride, length, size);
  uint32_t* key_pairs = scratch.key_pairs.reserve(pairs * size);
  pair_rows(k, shape.stride, length, 2 * pairs, size, key_pairs);
  float* scores = scratch.scores.reserve((length + 1) * std::max(kQueries, size));
  float* gradients = scratch.gradients.reserve((length + 1) * kQueries);
  uint32_t* query_columns = scratch.query_columns.reserve(words * kQueries);
  uint32_t* gradient_columns = scratch.gradient_columns.reserve(words * kQueries);
  uint32_t* query_pairs = scratch.query_pairs.reserve(kQueries / 2 * size);
  uint32_t* gradient_pairs = scratch.gradient_pairs.reserve(kQueries / 2 * size);
  uint32_t* score_pairs = scratch.score_pairs.reserve(pairs * kQueries);
  bf16* weight_rows = scratch.weight_rows.reserve((length + 1) * kQueries);
  bf16* score_rows = scratch.score_rows.reserve((length + 1) * kQueries);
  float* value_sums = scratch.value_sums.reserve(std::max(length, kQueries) * size);
  float* key_sums = scratch.key_sums.reserve(length * size);
  const Left keys = {reinterpret_cast<const uint32_t*>(k), shape.stride / 2, 1};
  const Left values = {reinterpret_cast<const uint32_t*>(v), shape.stride / 2, 1};
  const __m512 scaling = _mm512_set1_ps(shape.scaling), binary_scaling = _mm512_set1_ps(shape.scaling * kLog2E);
  for (int64_t first = 0; first < length; first += kQueries) {
    const int64_t count = std::min(kQueries, length - first), vectors = (count + kVector - 1) / kVector;
    const bf16* q_rows = q + first * shape.stride;
    const bf16* grad_rows = grad + first * out_stride;
    float products[kQueries];  // inner product of each query's output and its gradient
    for (int64_t row = 0; row < vectors * kVector; ++row) {
      __m512 sum = _mm512_setzero_ps();
      if (row < count)
        for (int64_t c = 0; c < size; c += kVector)
          sum = _mm512_fmadd_ps(load_bf16(grad_rows + row * out_stride + c),
                                load_bf16(out + (first + row) * out_stride + c), sum);
      products[row] = _mm512_reduce_add_ps(sum);
    }
    for (int64_t j = 0; j < vectors; ++j) {
      transpose_words(q_rows + j * kVector * shape.stride, shape.stride, count - j * kVector, words,
                      query_columns + j * kVector, kQueries);
      transpose_words(grad_rows + j * kVector * out_stride, out_stride, count - j * kVector, words,
                      gradient_columns + j * kVector, kQueries);
    }
    pair_rows(q_rows, shape.stride, count, vectors * kVector, size, query_pairs);
    pair_rows(grad_rows, out_stride, count, vectors * kVector, size, gradient_pairs);
    multiply_any(vectors, keys, length, query_columns, kQueries, words, scores, kQueries, false);
    multiply_any(vectors, values, length, gradient_columns, kQueries, words, gradients, kQueries, false);
    for (int64_t j = 0; j < vectors; ++j) {
      const __mmask16 lanes = first_lanes(count - j * kVector);
      // Lanes beyond the record have an inverse of zero, so their weights are zero.
      const __m512 maximum = _mm512_maskz_loadu_ps(lanes, maxima + first + j * kVector);
      const __m512 inverse = _mm512_maskz_loadu_ps(lanes, inverses + first + j * kVector);
      const __m512 product = _mm512_loadu_ps(products + j * kVector);
      __m512i row_key = _mm512_setzero_si512();
      if (shape.dropout > 0.0f) row_key = _mm512_maskz_loadu_epi32(lanes, row_keys + first + j * kVector);
      for (int64_t pair = 0; pair < pairs; ++pair) {
        __m512 weight[2], score[2];
        KeepPair keep = {_mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f)};
        if (shape.dropout > 0.0f) keep = keep_pair(row_key, pair_keys[pair], shape.dropout);
#pragma GCC unroll 2
        for (int odd = 0; odd < 2; ++odd) {
          const int64_t row = 2 * pair + odd;
          if (row >= length) {
            weight[odd] = score[odd] = _mm512_setzero_ps();
            continue;
          }
          const int64_t place = row * kQueries + j * kVector;
          const __m512 factor = odd ? keep.odd : keep.even;
          const __m512 dots = _mm512_loadu_ps(scores + place);
          const __m512 exponent =
              bias ? _mm512_sub_ps(add_bias(dots, binary_scaling, bias + first + j * kVector, row), maximum)
                   : _mm512_fmsub_ps(dots, binary_scaling, maximum);
          const __m512 p = _mm512_mul_ps(exp2_ps(exponent), inverse);
          weight[odd] = _mm512_mul_ps(p, factor);
          const __m512 g = _mm512_fmsub_ps(_mm512_loadu_ps(gradients + place), factor, product);
          score[odd] = _mm512_mul_ps(_mm512_mul_ps(p, g), scaling);
        }
        // A missing last row is written to the extra row at the end of the scratch.
        const int64_t place = 2 * pair * kQueries + j * kVector;
        store_halves(weight_rows + place, join_bf16(weight[0], weight[1]));
        const __m512i joined = join_bf16(score[0], score[1]);
        store_halves(score_rows + place, joined);
        _mm512_storeu_si512(score_pairs + pair * kQueries + j * kVector, interleave_halves(joined));
      }
    }
    const int64_t vectors_of_size = size / kVector, inner = vectors * kVector / 2;
    multiply_any(vectors_of_size, {reinterpret_cast<const uint32_t*>(weight_rows), kQueries / 2, 1}, length,
                 gradient_pairs, size, inner, value_sums, size, first > 0);
    multiply_any(vectors_of_size, {reinterpret_cast<const uint32_t*>(score_rows), kQueries / 2, 1}, length, query_pairs,
                 size, inner, key_sums, size, first > 0);
    float* query_sums = scores;  // the scores are no longer needed
    multiply_any(vectors_of_size, {score_pairs, 1, kQueries}, count, key_pairs, size, pairs, query_sums, size, false);
    for (int64_t row = 0; row < count; ++row)
      for (int64_t c = 0; c < size; c += kVector)
        store_bf16(grad_q + (first + row) * shape.stride + c, _mm512_loadu_ps(query_sums + row * size + c));
  }
  for (int64_t row = 0; row < length; ++row)
    for (int64_t c = 0; c < size; c += kVector) {
      store_bf16(grad_k + row * shape.stride + c, _mm512_loadu_ps(key_sums + row * size + c));
      store_bf16(grad_v + row * shape.stride + c, _mm512_loadu_ps(value_sums + row * size + c));
    }
}

}  // namespace submillion
