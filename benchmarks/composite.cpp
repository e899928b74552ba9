// Compositing of one saved scene with hand-written AVX-512 or AVX2 instructions: the measure that
// bench_composite.py holds the project's own kernel against. Same tiles, same planes, same blocks of
// 8 x 2 pixels, same polynomial, same early stop.
//
// Usage: composite OFFSETS ITEMS SPLATS TILES_X ROUNDS   (raw int64, uint32 and float32 files)
// Prints the milliseconds of processor time of every round, then the sum of all planes.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

namespace {

constexpr int kTile = 16, kPixels = 256, kWidth = 16, kCheckEvery = 16;
constexpr float kStop = 1e-4f, kCap = 0.99f;
const float kLogFloor = std::log(1.0f / 255.0f) / 8.0f;

template <typename T>
std::vector<T> read_file(const char* path) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) std::exit(2);
  std::fseek(file, 0, SEEK_END);
  std::vector<T> values(std::ftell(file) / sizeof(T));
  std::rewind(file);
  if (std::fread(values.data(), sizeof(T), values.size(), file) != values.size()) std::exit(2);
  std::fclose(file);
  return values;
}

#ifdef __AVX512F__
using Vec = __m512;
constexpr int kLanes = 16;
inline Vec set1(float v) { return _mm512_set1_ps(v); }
inline Vec load(const float* p) { return _mm512_load_ps(p); }
inline void store(float* p, Vec v) { _mm512_store_ps(p, v); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec largest(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec capped_where(Vec e, Vec t) {
  const __mmask16 seen = _mm512_cmp_ps_mask(t, set1(kLogFloor), _CMP_GE_OQ);
  return _mm512_maskz_min_ps(seen, e, set1(kCap));
}
inline bool any_above(Vec v, float limit) {
  return _mm512_cmp_ps_mask(v, set1(limit), _CMP_GT_OQ) != 0;
}
#else
using Vec = __m256;
constexpr int kLanes = 8;
inline Vec set1(float v) { return _mm256_set1_ps(v); }
inline Vec load(const float* p) { return _mm256_load_ps(p); }
inline void store(float* p, Vec v) { _mm256_store_ps(p, v); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec largest(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec capped_where(Vec e, Vec t) {
  return _mm256_and_ps(_mm256_min_ps(e, set1(kCap)), _mm256_cmp_ps(t, set1(kLogFloor), _CMP_GE_OQ));
}
inline bool any_above(Vec v, float limit) {
  return _mm256_movemask_ps(_mm256_cmp_ps(v, set1(limit), _CMP_GT_OQ)) != 0;
}
#endif

alignas(64) const float kColumn[16] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7};
alignas(64) const float kRow[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};

inline Vec alpha_of(Vec t) {
  Vec e = fma(set1(0.02921248f), t, set1(0.15923827f));
  e = fma(e, t, set1(0.498105f));
  e = fma(e, t, set1(0.99982466f));
  e = fma(e, t, set1(0.99999728f));
  e = mul(e, e);
  e = mul(e, e);
  return capped_where(mul(e, e), t);
}

void blend(const float* s, int left, int top, float* planes) {
  const float mx = s[0] - left - 0.5f, my = s[1] - top - 0.5f, ex = s[6], ey = s[7];
  const int half_0 = mx - ex > 7.0f ? 1 : 0, half_1 = mx + ex < 8.0f ? 1 : 2;
  const int pair_0 = std::max(static_cast<int>(std::ceil(my - ey)), 0) / 2;
  const int pair_1 = std::min((static_cast<int>(std::floor(my + ey)) >> 1) + 1, kTile / 2);
  const Vec a = set1(s[2] * -0.125f), b = set1(s[3] * -0.125f), c = set1(s[4] * -0.125f);
  const Vec peak = set1(s[5] * 0.125f + kLogFloor);
  const Vec red = set1(s[8]), green = set1(s[9]), blue = set1(s[10]);
  for (int half = half_0; half < half_1; ++half) {
    for (int part = 0; part < 16; part += kLanes) {
      const Vec x = add(set1(half * 8 - mx), load(kColumn + part));
      const Vec square = fma(mul(a, x), x, peak), mixed = mul(b, x);
      for (int pair = pair_0; pair < pair_1; ++pair) {
        float* at = planes + half * (kPixels / 2) + pair * 16 + part;
        const Vec y = add(set1(pair * 2 - my), load(kRow + part));
        const Vec alpha = alpha_of(fma(y, fma(c, y, mixed), square));
        const Vec open = load(at), weight = mul(alpha, open);
        store(at, sub(open, weight));
        store(at + kPixels, fma(weight, red, load(at + kPixels)));
        store(at + 2 * kPixels, fma(weight, green, load(at + 2 * kPixels)));
        store(at + 3 * kPixels, fma(weight, blue, load(at + 3 * kPixels)));
      }
    }
  }
}

bool opaque(const float* planes) {
  Vec most = load(planes);
  for (int i = kLanes; i < kPixels; i += kLanes) most = largest(most, load(planes + i));
  return !any_above(most, kStop);
}

double processor_ms() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const auto offsets = read_file<int64_t>(argv[1]);
  const auto items = read_file<uint32_t>(argv[2]);
  const auto splats = read_file<float>(argv[3]);
  const int tiles_x = std::atoi(argv[4]), rounds = std::atoi(argv[5]);
  const int tiles = static_cast<int>(offsets.size()) - 1;
  alignas(64) static float planes[4 * kPixels];
  std::vector<float> picture(static_cast<size_t>(tiles) * 4 * kPixels);
  for (int round = 0; round < rounds; ++round) {
    const double start = processor_ms();
    for (int tile = 0; tile < tiles; ++tile) {
      std::fill(planes, planes + kPixels, 1.0f);
      std::fill(planes + kPixels, planes + 4 * kPixels, 0.0f);
      const int left = tile % tiles_x * kTile, top = tile / tiles_x * kTile;
      const int64_t end = offsets[tile + 1];
      for (int64_t first = offsets[tile]; first < end; first += kCheckEvery) {
        const int64_t last = std::min(first + kCheckEvery, end);
        for (int64_t p = last; p < std::min(last + kCheckEvery, end); ++p)
          _mm_prefetch(reinterpret_cast<const char*>(&splats[size_t{items[p]} * kWidth]), _MM_HINT_T0);
        for (int64_t p = first; p < last; ++p)
          blend(&splats[size_t{items[p]} * kWidth], left, top, planes);
        if (opaque(planes)) break;
      }
      std::copy(planes, planes + 4 * kPixels, &picture[static_cast<size_t>(tile) * 4 * kPixels]);
    }
    std::printf("%.4f\n", processor_ms() - start);
  }
  double total = 0.0;
  for (const float value : picture) total += value;
  std::printf("sum %.6f lanes %d\n", total, kLanes);
}
