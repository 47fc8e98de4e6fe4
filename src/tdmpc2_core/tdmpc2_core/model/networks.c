/* Whole networks of TD-MPC2, one call each; called by imagine/compiled.py, float32, contiguous.

   For plans of few candidates the time between two of a library's calls counts as much as the calls. A network's
   first layer takes a latent and an action; its last one gives logits, or a SimNorm where it is normed. Rows pass
   through all layers in blocks that stay in a core's cache; blocks are shared out to `threads`. */

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { PANEL = 16, TILE = 6, BLOCK = 96 }; /* 6 x 16 sums fill the vector registers of AVX2 and of NEON */

typedef float vec __attribute__((vector_size(32), aligned(4)));

typedef struct { /* as in imagine/compiled.py */
    const float *weight, *bias, *gain, *shift; /* weight in panels: (outputs / 16, inputs, 16), zeros at the end */
    int64_t inputs, outputs;
} layer;

void norm_mish(const float *, const float *, const float *, const float *, float *, int64_t, int64_t, float, int);
void norm_simnorm(const float *, const float *, const float *, const float *, float *, int64_t, int64_t, int64_t, float,
                  int);
void expected_bin(float *, const float *, const float *, float *, int64_t, int64_t, int);

/* A tile of out = x w, or of out += x w: `rows` <= TILE rows of `depth` inputs, one panel of weights. */
static inline __attribute__((always_inline)) void tile(const int rows, const float *x, const float *w, int64_t depth,
                                                       float *out, int64_t stride, int64_t width, int add)
{
    vec sums[TILE][2];
    for (int i = 0; i < rows; i++) sums[i][0] = sums[i][1] = (vec){0.0f};
    for (int64_t k = 0; k < depth; k++, w += PANEL) {
        const vec left = *(const vec *)w, right = *(const vec *)(w + 8);
        for (int i = 0; i < rows; i++) {
            const float v = x[i * depth + k];
            sums[i][0] += v * left;
            sums[i][1] += v * right;
        }
    }
    for (int i = 0; i < rows; i++, out += stride) {
        float row[PANEL];
        memcpy(row, sums[i], sizeof(row));
        if (add)
            for (int j = 0; j < PANEL && j < width; j++) out[j] += row[j];
        else if (width >= PANEL)
            memcpy(out, row, sizeof(row));
        else
            memcpy(out, row, (size_t)width * sizeof(float));
    }
}

/* out (rows, outputs) = x (rows, inputs) w, or += where `add`. */
static void product(const float *x, int64_t rows, const float *w, int64_t inputs, int64_t outputs, float *out, int add)
{
    for (int64_t j = 0; j < outputs; j += PANEL, w += PANEL * inputs) {
        int64_t i = 0;
        for (; i + TILE <= rows; i += TILE)
            tile(TILE, x + i * inputs, w, inputs, out + i * outputs + j, outputs, outputs - j, add);
        const float *rest = x + i * inputs;
        float *end = out + i * outputs + j;
        switch (rows - i) {
        case 5: tile(5, rest, w, inputs, end, outputs, outputs - j, add); break;
        case 4: tile(4, rest, w, inputs, end, outputs, outputs - j, add); break;
        case 3: tile(3, rest, w, inputs, end, outputs, outputs - j, add); break;
        case 2: tile(2, rest, w, inputs, end, outputs, outputs - j, add); break;
        case 1: tile(1, rest, w, inputs, end, outputs, outputs - j, add); break;
        default: break;
        }
    }
}

/* Rows [begin, end) of `network`; scratch has room for twice these rows of the widest layer. */
static void block(const layer *layers, int64_t count, const float *z, int64_t repeat, const float *action,
                  const float *action_weight, int64_t actions, int64_t begin, int64_t end, int64_t widest,
                  int64_t group, float eps, float *scratch, float *out)
{
    const int64_t width = layers[0].outputs, inputs = layers[0].inputs, rows = end - begin, first = begin / repeat;
    float *x = scratch, *y = scratch + rows * widest;
    if (repeat > 1) {
        product(z + first * inputs, (end - 1) / repeat - first + 1, layers[0].weight, inputs, width, y, 0);
        for (int64_t i = 0; i < rows; i++)
            memcpy(x + i * width, y + ((begin + i) / repeat - first) * width, (size_t)width * sizeof(float));
    } else
        product(z + begin * inputs, rows, layers[0].weight, inputs, width, x, 0);
    if (action) product(action + begin * actions, rows, action_weight, actions, width, x, 1);
    const layer *last = layers + count - 1;
    out += begin * last->outputs;
    for (int64_t l = 1; l < count; l++) {
        const layer *before = layers + l - 1, *next = layers + l;
        float *result = l + 1 == count ? out : y;
        norm_mish(x, before->bias, before->gain, before->shift, x, rows, before->outputs, eps, 1);
        product(x, rows, next->weight, next->inputs, next->outputs, result, 0);
        y = x;
        x = result;
    }
    if (last->gain)
        norm_simnorm(out, last->bias, last->gain, last->shift, out, rows, last->outputs, group, eps, 1);
    else
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < last->outputs; j++) out[i * last->outputs + j] += last->bias[j];
}

/* out (rows, outputs of the last layer) <- network of z (rows / repeat, L) and action (rows, A), or NULL. Hidden
   layers end in Mish(LayerNorm), the last one in SimNorm over groups of `group` where it has a gain. `action_weight`:
   panels of the first layer. `scratch`: room for twice the rows of the widest layer. */
void network(const layer *layers, int64_t count, const float *z, int64_t repeat, const float *action,
             const float *action_weight, int64_t actions, int64_t rows, int64_t group, float eps, float *scratch,
             float *out, int threads)
{
    int64_t widest = 0, size = (rows + threads - 1) / threads;
    for (int64_t l = 0; l < count; l++) widest = layers[l].outputs > widest ? layers[l].outputs : widest;
    size = size > BLOCK ? BLOCK : (size + TILE - 1) / TILE * TILE;
    const int64_t blocks = (rows + size - 1) / size;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t begin = b * size, end = begin + size < rows ? begin + size : rows;
        block(layers, count, z, repeat, action, action_weight, actions, begin, end, widest, group, eps,
              scratch + 2 * begin * widest, out);
    }
}

/* out (rows) <- value of two-hot logits (rows, count) over `bins`, which are consumed: symexp of the expected bin. */
void decode(float *logits, const float *bins, float *out, int64_t rows, int64_t count, int threads)
{
    expected_bin(logits, NULL, bins, out, rows, count, threads);
    for (int64_t i = 0; i < rows; i++) out[i] = copysignf(expm1f(fabsf(out[i])), out[i]);
}

/* out (rows, count) <- tanh(mean + noise exp(log std)) of a policy's output (rows, 2 count); noise NULL: tanh(mean).
   log std: its range is [low, high], entered by a tanh. */
void squash(const float *output, const float *noise, float *out, int64_t rows, int64_t count, float low, float high)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < count; j++) {
            const float *mean = output + 2 * i * count + j;
            const float log_std = low + 0.5f * (high - low) * (tanhf(mean[count]) + 1.0f);
            out[i * count + j] = tanhf(*mean + (noise ? noise[i * count + j] * expf(log_std) : 0.0f));
        }
}
