/* Row-wise kernels of TD-MPC2's layers, one pass over memory each; called by kernels.py, float32, contiguous.

   Plain loops that a compiler turns into vector code on any processor. Rows are shared out to `threads`.
   Mish, with n = e (e + 2) and e = e^x: x n / (n + 2). The argument of 2^x is bounded so that n is finite. */

#include <stdint.h>
#include <math.h>

#define LOG2_E 1.44269504088896341f

/* 2^x for -bound <= x <= bound <= 126, which is applied to others: exponent from the nearest integer, polynomial of the
   rest r (|r| <= 1/2; least relative error of degree 6, 2e-9). */
static inline float power_of_two(float x, float bound)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, kept in the low bits */
    union { float f; int32_t i; } t, p;
    x = -bound > x ? -bound : x;
    x = bound < x ? bound : x;
    t.f = x + magic;
    const float r = x - (t.f - magic);
    p.f = 1.535335971e-4f;
    p.f = p.f * r + 1.339887488e-3f;
    p.f = p.f * r + 9.618437370e-3f;
    p.f = p.f * r + 5.550332470e-2f;
    p.f = p.f * r + 2.402264791e-1f;
    p.f = p.f * r + 6.931472029e-1f;
    p.f = p.f * r + 1.0f;
    p.i += (int32_t)((uint32_t)t.i << 23);
    return p.f;
}

/* 2^x as a softmax needs it: NaN stays NaN. */
static inline float term(float x)
{
    const float c = -126.0f > x ? -126.0f : x;
    return power_of_two(c, 126.0f) + (c - c);
}

/* Mean and 1 / sqrt(variance + eps) of a row; four sums, as one would wait for its own last addition. */
static inline void moments(const float *row, int64_t width, float eps, float *mean, float *inverse)
{
    const int64_t q = width / 4;
    const float *b = row + q, *c = b + q, *d = c + q;
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t j = 0; j < q; j++) {
        s0 += row[j];
        s1 += b[j];
        s2 += c[j];
        s3 += d[j];
    }
    for (int64_t j = 4 * q; j < width; j++) s0 += row[j];
    const float m = (s0 + s1 + s2 + s3) / (float)width;
    s0 = s1 = s2 = s3 = 0.0f;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t j = 0; j < q; j++) {
        s0 += (row[j] - m) * (row[j] - m);
        s1 += (b[j] - m) * (b[j] - m);
        s2 += (c[j] - m) * (c[j] - m);
        s3 += (d[j] - m) * (d[j] - m);
    }
    for (int64_t j = 4 * q; j < width; j++) s0 += (row[j] - m) * (row[j] - m);
    *mean = m;
    *inverse = 1.0f / sqrtf((s0 + s1 + s2 + s3) / (float)width + eps);
}

/* out <- Mish(LayerNorm(x)), (rows, width); out may be x. */
void norm_mish(const float *x, const float *gain, const float *shift, float *out, int64_t rows, int64_t width,
               float eps, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++) {
        const float *from = x + i * width;
        float mean, inverse, *row = out + i * width;
        moments(from, width, eps, &mean, &inverse);
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            const float u = (from[j] - mean) * inverse * gain[j] + shift[j];
            const float e = power_of_two(u * LOG2_E, 62.0f), n = e * (e + 2.0f);
            row[j] = u * (n / (n + 2.0f));
        }
    }
}

/* Backward of norm_mish: d <- gradient of x (rows, width) from the gradient `grad` of its output. `sums` (threads, 3,
   width), zero before: adds the gradients of gain, shift and of a bias in x. */
void norm_mish_backward(const float *grad, const float *x, const float *gain, const float *shift, float *d,
                        float *sums, int64_t rows, int64_t width, float eps, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int t = 0; t < threads; t++) {
        float *d_gain = sums + t * 3 * width, *d_shift = d_gain + width, *d_bias = d_shift + width;
        for (int64_t i = rows * t / threads; i < rows * (t + 1) / threads; i++) {
            const float *row = x + i * width, *g = grad + i * width;
            float mean, inverse, first = 0.0f, second = 0.0f, *out = d + i * width;
            moments(row, width, eps, &mean, &inverse);
#pragma omp simd reduction(+ : first, second)
            for (int64_t j = 0; j < width; j++) {
                const float v = (row[j] - mean) * inverse, u = v * gain[j] + shift[j];
                const float e = power_of_two(u * LOG2_E, 62.0f), n = e * (e + 2.0f), r = 1.0f / (n + 2.0f);
                /* slope: t + u (1 - t^2) sigmoid(u), t = n r, 1 - t^2 = 4 (n + 1) r^2, n + 1 = (e + 1)^2 */
                const float s = g[j] * (n * r + u * e * (e + 1.0f) * 4.0f * r * r), w = s * gain[j];
                d_gain[j] += s * v;
                d_shift[j] += s;
                first += w;
                second += w * v;
                out[j] = w;
            }
            first /= (float)width;
            second /= (float)width;
#pragma omp simd
            for (int64_t j = 0; j < width; j++) {
                out[j] = (out[j] - first - (row[j] - mean) * inverse * second) * inverse;
                d_bias[j] += out[j];
            }
        }
    }
}

/* x <- SimNorm(LayerNorm(x) + added): softmax in groups of `group`; added (rows, width) or NULL. */
void norm_simnorm(float *x, const float *gain, const float *shift, const float *added, int64_t rows, int64_t width,
                  int64_t group, float eps, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++) {
        float mean, inverse, largest = 0.0f, *row = x + i * width;
        moments(row, width, eps, &mean, &inverse);
#pragma omp simd
        for (int64_t j = 0; j < width; j++) row[j] = ((row[j] - mean) * inverse * gain[j] + shift[j]) * LOG2_E;
        if (added)
#pragma omp simd
            for (int64_t j = 0; j < width; j++) row[j] += added[i * width + j] * LOG2_E;
#pragma omp simd reduction(max : largest)
        for (int64_t j = 0; j < width; j++) largest = fabsf(row[j]) > largest ? fabsf(row[j]) : largest;
        if (largest > 60.0f) /* 2^60, summed over a group, is still far from the largest float */
            for (float *v = row; v < row + width; v += group) {
                float highest = v[0];
                for (int64_t j = 1; j < group; j++) highest = v[j] > highest ? v[j] : highest;
                for (int64_t j = 0; j < group; j++) v[j] -= highest;
            }
#pragma omp simd
        for (int64_t j = 0; j < width; j++) row[j] = term(row[j]);
        for (float *v = row; v < row + width; v += group) {
            float sum = 0.0f;
            for (int64_t j = 0; j < group; j++) sum += v[j];
            sum = 1.0f / sum;
            for (int64_t j = 0; j < group; j++) v[j] *= sum;
        }
    }
}

/* out (rows) <- expected bin of two-hot logits x (rows, width), before symexp. */
void expected_bin(const float *x, const float *bins, float *out, int64_t rows, int64_t width, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++) {
        const float *row = x + i * width;
        float highest = -INFINITY, sum = 0.0f, value = 0.0f;
        for (int64_t j = 0; j < width; j++) highest = row[j] > highest ? row[j] : highest;
#pragma omp simd reduction(+ : sum, value)
        for (int64_t j = 0; j < width; j++) {
            const float e = term((row[j] - highest) * LOG2_E);
            sum += e;
            value += e * bins[j];
        }
        out[i] = value / sum;
    }
}
