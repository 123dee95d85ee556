// The kernels of packed encoders, as plain C functions over raw pointers.
//
// bfloat16 arrays are uint16_t, token rows have an explicit stride in elements, and weights are packed by
// submillion_pack_*. Every function divides its work among the OpenMP threads in a fixed way, so that results may
// depend on the number of threads, but never on timing.
#include <cmath>

#include "attention.h"
#include "common.h"
#include "linear.h"

extern "C" {

struct SubmillionLowRank {
  const submillion::bf16* low;
  int64_t stride;
  const uint32_t* packed;
  int64_t words;
  const int32_t* begin;
  const int32_t* end;
};

}  // extern "C"

namespace submillion {
namespace {

template <typename Get>
void pack_pairs(int64_t inner, int64_t columns, uint32_t* packed, const Get& get) {
  const int64_t words = (inner + 1) / 2, padded = (columns + kVector - 1) / kVector * kVector;
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < padded; first += kPanel) {
    const int64_t width = std::min(kPanel, padded - first);
    uint32_t* panel = packed + first * words;
    for (int64_t word = 0; word < words; ++word)
      for (int64_t c = 0; c < width; ++c) {
        uint32_t pair = 0;
        if (first + c < columns) {
          pair = get(2 * word, first + c);
          if (2 * word + 1 < inner) pair |= static_cast<uint32_t>(get(2 * word + 1, first + c)) << 16;
        }
        panel[word * width + c] = pair;
      }
  }
}

// The forward pass of a residual and a norm over rows [begin, end) of a block: z + residual -> normalised, y.
struct NormRows {
  const bf16* residual;  // null for embeddings, whose dropout comes after the norm
  const float* weight;
  const float* bias;
  float epsilon;
  bf16* normalised;  // for the backward pass; may be null
  float* inverse_deviations;
  bf16* out;
  int64_t columns;
  Dropout dropout;

  void operator()(float* block, int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end; ++row) {
      float* z = block + (row - begin) * columns;
      if (residual && dropout.probability > 0.0f) drop_row(z, row);
      __m512 sum = _mm512_setzero_ps();
      for (int64_t c = 0; c < columns; c += kVector) {
        __m512 v = _mm512_loadu_ps(z + c);
        if (residual) v = _mm512_add_ps(v, load_bf16(residual + row * columns + c));
        _mm512_storeu_ps(z + c, v);
        sum = _mm512_add_ps(sum, v);
      }
      const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / static_cast<float>(columns));
      __m512 squares = _mm512_setzero_ps();
      for (int64_t c = 0; c < columns; c += kVector) {
        const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(z + c), mean);
        squares = _mm512_fmadd_ps(d, d, squares);
      }
      const float inverse = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / static_cast<float>(columns) + epsilon);
      const __m512 factor = _mm512_set1_ps(inverse);
      if (inverse_deviations) inverse_deviations[row] = inverse;
      for (int64_t c = 0; c < columns; c += kVector) {
        const __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(z + c), mean), factor);
        if (normalised) store_bf16(normalised + row * columns + c, v);
        const __m512 y = _mm512_fmadd_ps(v, _mm512_loadu_ps(weight + c), _mm512_loadu_ps(bias + c));
        if (residual)
          store_bf16(out + row * columns + c, y);
        else
          _mm512_storeu_ps(z + c, y);
      }
      if (!residual) {
        if (dropout.probability > 0.0f) drop_row(z, row);
        for (int64_t c = 0; c < columns; c += kVector)
          store_bf16(out + row * columns + c, _mm512_loadu_ps(z + c));
      }
    }
  }

  void drop_row(float* z, int64_t row) const {
    const __m512 scale = _mm512_set1_ps(dropout.keep_scale());
    for (int64_t c = 0; c < columns; c += 2 * kVector) {
      const __mmask32 keep = dropout.keep(row, c);
      _mm512_storeu_ps(z + c, _mm512_maskz_mul_ps(static_cast<__mmask16>(keep), _mm512_loadu_ps(z + c), scale));
      _mm512_storeu_ps(z + c + kVector, _mm512_maskz_mul_ps(static_cast<__mmask16>(keep >> 16),
                                                            _mm512_loadu_ps(z + c + kVector), scale));
    }
  }
};

// Calls work(begin, end) on this thread's rows, one block at a time.
template <class Work>
void for_each_block(int64_t num_rows, const Work& work) {
#pragma omp parallel
  {
    const Share share = share_rows(num_rows);
    for (int64_t begin = share.begin; begin < share.end; begin += kBlock)
      work(begin, std::min(share.end, begin + kBlock));
  }
}

// A low-rank term in the form that the products take, or null if there is none.
struct LowRankTerm {
  LowRankTerm(const SubmillionLowRank* given, int64_t columns) : present(given != nullptr), term{} {
    if (given)
      term = {given->low, given->stride, {given->packed, given->words, columns}, given->begin, given->end};
  }
  const LowRank* get() const { return present ? &term : nullptr; }

  bool present;
  LowRank term;
};

thread_local Scratch<bf16> inner_rows;
thread_local Scratch<float> block_rows;
thread_local Scratch<uint8_t> quantised_values;
thread_local Scratch<float> quantised_scales;
thread_local Scratch<uint32_t> token_pairs;
thread_local AttentionScratch attention_scratch;

QuantisedBlock quantise(const bf16* x, int64_t stride, int64_t begin, int64_t end, int64_t columns) {
  QuantisedBlock block;
  block.stride = columns;
  block.values = quantised_values.reserve(kBlock * columns);
  block.scales = quantised_scales.reserve(2 * kBlock);
  block.zeros = block.scales + kBlock;
  quantise_block(x, stride, begin, end, columns, block);
  return block;
}

// sums[r][c] += sum over tokens [begin, end) of left[n][r] * right[n][c], for up to 8 r and a multiple of 32 c.
template <int NR>
void accumulate_outer(const uint32_t* left_pairs, int64_t ranks, const bf16* right, int64_t stride, int64_t begin,
                      int64_t end, int64_t columns, float* sums) {
  alignas(64) static const uint16_t kLow[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                8,  40, 9,  41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  alignas(64) static const uint16_t kHigh[32] = {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
                                                 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
  const __m512i low_order = _mm512_load_si512(kLow), high_order = _mm512_load_si512(kHigh);
  for (int64_t c = 0; c < columns; c += 32) {
    __m512 acc[NR][2];
#pragma GCC unroll 8
    for (int i = 0; i < NR; ++i) {
      acc[i][0] = _mm512_loadu_ps(sums + i * columns + c);
      acc[i][1] = _mm512_loadu_ps(sums + i * columns + c + kVector);
    }
    const uint32_t* words = left_pairs;
    for (int64_t n = begin; n < end; n += 2, words += ranks) {
      const __m512i even = _mm512_loadu_si512(right + n * stride + c);
      const __m512i odd = n + 1 < end ? _mm512_loadu_si512(right + (n + 1) * stride + c) : _mm512_setzero_si512();
      const __m512i low = _mm512_permutex2var_epi16(even, low_order, odd);
      const __m512i high = _mm512_permutex2var_epi16(even, high_order, odd);
#pragma GCC unroll 8
      for (int i = 0; i < NR; ++i) {
        const __m512i word = _mm512_set1_epi32(static_cast<int>(words[i]));
        acc[i][0] = DotBf16::multiply(acc[i][0], word, low);
        acc[i][1] = DotBf16::multiply(acc[i][1], word, high);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < NR; ++i) {
      _mm512_storeu_ps(sums + i * columns + c, acc[i][0]);
      _mm512_storeu_ps(sums + i * columns + c + kVector, acc[i][1]);
    }
  }
}

}  // namespace
}  // namespace submillion

using namespace submillion;

extern "C" {

// Word counts of packed weights: (K + 1) / 2 * O rounded up to 16, or K / 4 * O for int8.
// Element (k, o) of the operand is source[k * inner_stride + o * column_stride].
void submillion_pack_bf16(const bf16* source, int64_t inner, int64_t columns, int64_t inner_stride,
                          int64_t column_stride, uint32_t* packed) {
  pack_pairs(inner, columns, packed,
             [&](int64_t k, int64_t o) { return source[k * inner_stride + o * column_stride]; });
}

void submillion_pack_float(const float* source, int64_t inner, int64_t columns, int64_t inner_stride,
                           int64_t column_stride, float factor, uint32_t* packed) {
  pack_pairs(inner, columns, packed,
             [&](int64_t k, int64_t o) { return to_bf16(factor * source[k * inner_stride + o * column_stride]); });
}

// source: int8 (O, K); K a multiple of 4.
void submillion_pack_int8(const int8_t* source, int64_t inner, int64_t columns, uint32_t* packed) {
  const int64_t words = inner / 4;
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < columns; first += kPanel) {
    const int64_t width = std::min(kPanel, columns - first);
    for (int64_t word = 0; word < words; ++word)
      for (int64_t c = 0; c < width; ++c)
        std::memcpy(packed + first * words + word * width + c, source + (first + c) * inner + 4 * word, 4);
  }
}

// y = x W (+ low B) (+ bias) (+ term); x may be a slice of wider rows
void submillion_linear(const bf16* x, int64_t x_stride, int64_t num_rows, int64_t inner, const uint32_t* packed,
                       int64_t columns, const float* bias, const SubmillionLowRank* low_rank, const bf16* added,
                       bf16* y, int64_t y_stride) {
  const Weight weight = {packed, inner / 2, columns};
  const LowRankTerm term(low_rank, columns);
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    multiply_block(x, x_stride, begin, end, weight, term.get(), StorePlain{y, y_stride, bias, added});
  });
}

// y = gelu(x W (+ low B) + bias), slope = its derivative
void submillion_linear_gelu(const bf16* x, int64_t num_rows, int64_t inner, const uint32_t* packed, int64_t columns,
                            const float* bias, const SubmillionLowRank* low_rank, bf16* slope, bf16* y) {
  const Weight weight = {packed, inner / 2, columns};
  const LowRankTerm term(low_rank, columns);
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    multiply_block(x, inner, begin, end, weight, term.get(), StoreGelu{slope, y, 0, columns, bias});
  });
}

// y = (x W (+ low B)) * factor
void submillion_linear_times(const bf16* x, int64_t num_rows, int64_t inner, const uint32_t* packed, int64_t columns,
                             const SubmillionLowRank* low_rank, const bf16* factor, bf16* y) {
  const Weight weight = {packed, inner / 2, columns};
  const LowRankTerm term(low_rank, columns);
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    multiply_block(x, inner, begin, end, weight, term.get(), StoreProduct{factor, y, 0, columns});
  });
}

struct SubmillionNorm {
  const bf16* residual;
  const float* weight;
  const float* bias;
  float epsilon;
  bf16* normalised;
  float* inverse_deviations;
  bf16* out;
  const int32_t* row_keys;
  const int32_t* pair_keys;
  float probability;
};

static NormRows make_norm_rows(const SubmillionNorm* norm, int64_t columns) {
  return {norm->residual, norm->weight, norm->bias, norm->epsilon, norm->normalised, norm->inverse_deviations,
          norm->out, columns, {norm->row_keys, norm->pair_keys, norm->probability}};
}

// y = norm(drop(x W (+ low B) + bias) + residual)
void submillion_linear_norm(const bf16* x, int64_t num_rows, int64_t inner, const uint32_t* packed, int64_t columns,
                            const float* bias, const SubmillionLowRank* low_rank, const SubmillionNorm* norm) {
  const Weight weight = {packed, inner / 2, columns};
  const LowRankTerm term(low_rank, columns);
  const NormRows rows = make_norm_rows(norm, columns);
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    float* block = block_rows.reserve(kBlock * columns);
    multiply_block(x, inner, begin, end, weight, term.get(), StoreBlock{block, columns, begin, bias});
    rows(block, begin, end);
  });
}

struct SubmillionInt8 {
  const uint32_t* packed;
  int64_t inner;
  int64_t columns;
  const float* scales;
  const float* sums;
};

void submillion_int8_linear(const bf16* x, int64_t num_rows, const SubmillionInt8* w, const float* bias, bf16* y) {
  const Int8Weight weight = {{w->packed, w->inner / 4, w->columns}, w->scales, w->sums};
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    const QuantisedBlock block = quantise(x, w->inner, begin, end, w->inner);
    multiply_block_int8(block, begin, end, weight, StorePlain{y, w->columns, bias, nullptr});
  });
}

void submillion_int8_ffn_norm(const bf16* x, int64_t num_rows, const SubmillionInt8* in, const float* inner_bias,
                              const SubmillionInt8* out, const float* bias, const SubmillionNorm* norm) {
  const Int8Weight first = {{in->packed, in->inner / 4, in->columns}, in->scales, in->sums};
  const Int8Weight second = {{out->packed, out->inner / 4, out->columns}, out->scales, out->sums};
  const NormRows rows = make_norm_rows(norm, out->columns);
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    bf16* states = inner_rows.reserve(kBlock * in->columns);
    const QuantisedBlock entering = quantise(x, in->inner, begin, end, in->inner);
    multiply_block_int8(entering, begin, end, first, StoreGelu{nullptr, states, begin, in->columns, inner_bias});
    const QuantisedBlock inside = quantise(states, in->columns, 0, end - begin, in->columns);
    float* block = block_rows.reserve(kBlock * out->columns);
    multiply_block_int8(inside, 0, end - begin, second, StoreBlock{block, out->columns, 0, bias});
    rows(block, begin, end);
  });
}

void submillion_int8_linear_norm(const bf16* x, int64_t num_rows, const SubmillionInt8* w, const float* bias,
                                 const SubmillionNorm* norm) {
  const Int8Weight weight = {{w->packed, w->inner / 4, w->columns}, w->scales, w->sums};
  const NormRows rows = make_norm_rows(norm, w->columns);
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    const QuantisedBlock quantised = quantise(x, w->inner, begin, end, w->inner);
    float* block = block_rows.reserve(kBlock * w->columns);
    multiply_block_int8(quantised, begin, end, weight, StoreBlock{block, w->columns, begin, bias});
    rows(block, begin, end);
  });
}

// y = norm(drop(gelu(x Wi (+ low B) + inner bias) Wf + bias) + residual), where the inner states never leave the cache
void submillion_ffn_norm(const bf16* x, int64_t num_rows, int64_t inner, const uint32_t* packed_in, int64_t middle,
                         const float* inner_bias, const SubmillionLowRank* low_rank, bf16* slope,
                         const uint32_t* packed_out, const float* bias, const SubmillionNorm* norm) {
  const Weight in = {packed_in, inner / 2, middle}, out = {packed_out, middle / 2, inner};
  const LowRankTerm term(low_rank, middle);
  const NormRows rows = make_norm_rows(norm, inner);
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    bf16* states = inner_rows.reserve(kBlock * middle);
    multiply_block(x, inner, begin, end, in, term.get(), StoreGelu{slope, states, begin, middle, inner_bias});
    float* block = block_rows.reserve(kBlock * inner);
    multiply_block(states, middle, 0, end - begin, out, nullptr, StoreBlock{block, inner, 0, bias});
    rows(block, begin, end);
  });
}

// y = ((grad Wf^T) * slope) Wi^T + added, where the inner gradient never leaves the cache
void submillion_ffn_backward(const bf16* grad, int64_t num_rows, int64_t outer, const uint32_t* packed_out,
                             int64_t middle, const bf16* slope, const uint32_t* packed_in, const bf16* added, bf16* y) {
  const Weight out = {packed_out, outer / 2, middle}, in = {packed_in, middle / 2, outer};
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    bf16* states = inner_rows.reserve(kBlock * middle);
    multiply_block(grad, outer, begin, end, out, nullptr, StoreProduct{slope, states, begin, middle});
    const int64_t place = begin * outer;
    multiply_block(states, middle, 0, end - begin, in, nullptr, StorePlain{y + place, outer, nullptr, added + place});
  });
}

// The gradients of norm(drop(z) + residual): of the residual, and of z if it was dropped (otherwise null: both are
// equal).
void submillion_norm_backward(const bf16* grad, int64_t num_rows, int64_t columns,
                              const bf16* normalised, const float* inverse_deviations, const float* weight,
                              bf16* grad_residual, bf16* grad_z, const int32_t* row_keys, const int32_t* pair_keys,
                              float probability) {
  const Dropout dropout = {row_keys, pair_keys, probability};
  const float share = 1.0f / static_cast<float>(columns);
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    float* scaled = block_rows.reserve(columns);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t place = row * columns;
      __m512 sum = _mm512_setzero_ps(), products = _mm512_setzero_ps();
      for (int64_t c = 0; c < columns; c += kVector) {
        const __m512 g = _mm512_mul_ps(load_bf16(grad + place + c), _mm512_loadu_ps(weight + c));
        _mm512_storeu_ps(scaled + c, g);
        sum = _mm512_add_ps(sum, g);
        products = _mm512_fmadd_ps(g, load_bf16(normalised + place + c), products);
      }
      const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) * share);
      const __m512 slope = _mm512_set1_ps(_mm512_reduce_add_ps(products) * share);
      const __m512 factor = _mm512_set1_ps(inverse_deviations[row]);
      const __m512 scale = _mm512_set1_ps(dropout.keep_scale());
      for (int64_t c = 0; c < columns; c += 2 * kVector) {
        const __mmask32 keep = grad_z ? dropout.keep(row, c) : 0;
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          const int64_t column = c + half * kVector;
          __m512 v = _mm512_sub_ps(_mm512_loadu_ps(scaled + column), mean);
          v = _mm512_mul_ps(_mm512_fnmadd_ps(load_bf16(normalised + place + column), slope, v), factor);
          store_bf16(grad_residual + place + column, v);
          if (grad_z)
            store_bf16(grad_z + place + column,
                       _mm512_maskz_mul_ps(static_cast<__mmask16>(keep >> (16 * half)), v, scale));
        }
      }
    }
  });
}

// out = drop(norm(words[ids] + places[positions])): embeddings, without a backward pass.
void submillion_embed(const int64_t* ids, const int64_t* positions, int64_t num_rows, int64_t columns,
                      const bf16* words, const float* places, const SubmillionNorm* norm) {
  const NormRows rows = {nullptr, norm->weight, norm->bias, norm->epsilon, nullptr, nullptr, norm->out, columns,
                         {norm->row_keys, norm->pair_keys, norm->probability}};
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    float* block = block_rows.reserve(kBlock * columns);
    for (int64_t row = begin; row < end; ++row) {
      const bf16* word = words + ids[row] * columns;
      const float* place = places + positions[row] * columns;
      for (int64_t c = 0; c < columns; c += kVector)
        _mm512_storeu_ps(block + (row - begin) * columns + c,
                         _mm512_add_ps(load_bf16(word + c), _mm512_loadu_ps(place + c)));
    }
    rows(block, begin, end);
  });
}

// y = drop(x), or y += drop(x): the input of an adapter, and its gradient.
void submillion_drop(const bf16* x, int64_t num_rows, int64_t columns, const int32_t* row_keys,
                     const int32_t* pair_keys, float probability, int32_t accumulate, bf16* y) {
  const Dropout dropout = {row_keys, pair_keys, probability};
  for_each_block(num_rows, [&](int64_t begin, int64_t end) {
    const __m512 scale = _mm512_set1_ps(dropout.keep_scale());
    for (int64_t row = begin; row < end; ++row)
      for (int64_t c = 0; c < columns; c += 2 * kVector) {
        const __mmask32 keep = dropout.keep(row, c);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          const int64_t place = row * columns + c + half * kVector;
          __m512 v = _mm512_maskz_mul_ps(static_cast<__mmask16>(keep >> (16 * half)), load_bf16(x + place), scale);
          if (accumulate) v = _mm512_add_ps(v, load_bf16(y + place));
          store_bf16(y + place, v);
        }
      }
  });
}

// out (ranks, columns) float32 = factor * left^T right over all tokens; left (N, left_stride), right (N, right_stride).
// `partial` holds num_threads * ranks * columns floats. Columns must be a multiple of 32.
void submillion_outer(const bf16* left, int64_t left_stride, int64_t ranks, const bf16* right, int64_t right_stride,
                      int64_t columns, int64_t num_rows, float factor, int32_t num_threads, float* partial, float* out) {
  const int64_t size = ranks * columns;
  // There are as many threads as partial sums, whatever the calling thread's setting is.
#pragma omp parallel num_threads(num_threads)
  {
    const int64_t threads = omp_get_num_threads();
    float* sums = partial + omp_get_thread_num() * size;
    std::memset(sums, 0, size * sizeof(float));
    const Share share = share_rows(num_rows);
    uint32_t* pairs = token_pairs.reserve(kBlock / 2 * ranks);
    for (int64_t begin = share.begin; begin < share.end; begin += kBlock) {
      const int64_t end = std::min(share.end, begin + kBlock);
      for (int64_t n = begin; n < end; n += 2)
        for (int64_t r = 0; r < ranks; ++r) {
          const uint32_t even = left[n * left_stride + r];
          const uint32_t odd = n + 1 < end ? left[(n + 1) * left_stride + r] : 0;
          pairs[(n - begin) / 2 * ranks + r] = even | odd << 16;
        }
      for (int64_t r = 0; r < ranks; r += 8) {
        float* rows = sums + r * columns;
        const uint32_t* words = pairs + r;
        switch (std::min<int64_t>(8, ranks - r)) {
          case 8: accumulate_outer<8>(words, ranks, right, right_stride, begin, end, columns, rows); break;
          case 7: accumulate_outer<7>(words, ranks, right, right_stride, begin, end, columns, rows); break;
          case 6: accumulate_outer<6>(words, ranks, right, right_stride, begin, end, columns, rows); break;
          case 5: accumulate_outer<5>(words, ranks, right, right_stride, begin, end, columns, rows); break;
          case 4: accumulate_outer<4>(words, ranks, right, right_stride, begin, end, columns, rows); break;
          case 3: accumulate_outer<3>(words, ranks, right, right_stride, begin, end, columns, rows); break;
          case 2: accumulate_outer<2>(words, ranks, right, right_stride, begin, end, columns, rows); break;
          default: accumulate_outer<1>(words, ranks, right, right_stride, begin, end, columns, rows);
        }
      }
    }
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t i = 0; i < size; ++i) {
      float total = 0.0f;
      for (int64_t thread = 0; thread < threads; ++thread) total += partial[thread * size + i];
      out[i] = factor * total;
    }
  }
}

struct SubmillionAttention {
  const bf16* qkv;  // (N, 3 * heads * size): q, k and v side by side
  int64_t num_heads;
  int64_t head_size;
  float scaling;
  const int64_t* offsets;  // (B + 1,)
  int64_t num_records;
  int64_t num_tokens;
  float* maxima;    // (heads, N) or null
  float* inverses;  // (heads, N) or null
  const int32_t* row_keys;
  const int32_t* pair_keys;  // (heads, max_pairs)
  int64_t max_pairs;
  float probability;
  const float* bias;  // (heads, bias_stride) by query minus key, times log2(e); or null
  int64_t bias_stride;
  int64_t bias_centre;  // index of distance 0
};

namespace {
const float* find_bias(const SubmillionAttention* a, int64_t head) {
  return a->bias ? a->bias + head * a->bias_stride + a->bias_centre : nullptr;
}
}  // namespace

// out: (N, heads * size)
void submillion_attention(const SubmillionAttention* a, bf16* out) {
  const int64_t hidden = a->num_heads * a->head_size;
  const AttentionShape shape = {a->head_size, 3 * hidden, a->scaling, a->probability};
  const int64_t num_tasks = a->num_records * a->num_heads;
  // Records are ordered by length. The long ones come first, so that the threads end at about the same time.
#pragma omp parallel for schedule(dynamic, 4)
  for (int64_t task = 0; task < num_tasks; ++task) {
    const int64_t record = a->num_records - 1 - task / a->num_heads, head = task % a->num_heads;
    const int64_t start = a->offsets[record], length = a->offsets[record + 1] - start;
    const bf16* q = a->qkv + start * shape.stride + head * a->head_size;
    float* maxima = a->maxima ? a->maxima + head * a->num_tokens + start : nullptr;
    float* inverses = a->maxima ? a->inverses + head * a->num_tokens + start : nullptr;
    const int32_t* row_keys = a->row_keys ? a->row_keys + start : nullptr;
    attend_record(q, q + hidden, q + 2 * hidden, out + start * hidden + head * a->head_size, hidden, length, shape,
                  row_keys, a->pair_keys + head * a->max_pairs, find_bias(a, head), maxima, inverses,
                  attention_scratch);
  }
}

void submillion_attention_backward(const SubmillionAttention* a, const bf16* out, const bf16* grad, bf16* grad_qkv) {
  const int64_t hidden = a->num_heads * a->head_size;
  const AttentionShape shape = {a->head_size, 3 * hidden, a->scaling, a->probability};
  const int64_t num_tasks = a->num_records * a->num_heads;
#pragma omp parallel for schedule(dynamic, 4)
  for (int64_t task = 0; task < num_tasks; ++task) {
    const int64_t record = a->num_records - 1 - task / a->num_heads, head = task % a->num_heads;
    const int64_t start = a->offsets[record], length = a->offsets[record + 1] - start;
    const int64_t place = start * shape.stride + head * a->head_size;
    const bf16* q = a->qkv + place;
    const int64_t result = start * hidden + head * a->head_size;
    const int32_t* row_keys = a->row_keys ? a->row_keys + start : nullptr;
    attend_record_backward(q, q + hidden, q + 2 * hidden, out + result, grad + result, hidden, length, shape,
                           row_keys, a->pair_keys + head * a->max_pairs, find_bias(a, head),
                           a->maxima + head * a->num_tokens + start, a->inverses + head * a->num_tokens + start,
                           grad_qkv + place, grad_qkv + place + hidden, grad_qkv + place + 2 * hidden,
                           attention_scratch);
  }
}

}  // extern "C"
