/* Matrix products, and whole networks of TD-MPC2 in one call each; called by kernels.py and imagine/compiled.py, float32.

   For plans of few candidates the time between two of a library's calls counts as much as the calls. A network's
   first layer takes a latent and an action; its last one gives logits, or a SimNorm where it is normed. Rows pass
   through all layers in blocks that stay in a core's cache; blocks are shared out to `threads`. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
enum { LANES = 16 };
#else
enum { LANES = 8 }; /* AVX2; two registers of NEON */
#endif
/* 6 x 2 sums fill the vector registers of AVX2; DEPTH inputs of BLOCK rows and of a panel stay in a core's caches. */
enum { PANEL = 2 * LANES, TILE = 6, BLOCK = 192, DEPTH = 512 };

const int64_t panel = PANEL; /* read by kernels.py */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct { /* as in imagine/compiled.py */
    const float *weight, *bias, *gain, *shift; /* weight in panels: (outputs / PANEL, inputs, PANEL), zeros at the end */
    int64_t inputs, outputs;
} layer;

typedef struct { /* entry (i, j) of a matrix: at[i * row + j * step] */
    const float *at;
    int64_t row, step;
} matrix;

void norm_mish(const float *, const float *, const float *, float *, int64_t, int64_t, float, int);
void norm_simnorm(float *, const float *, const float *, const float *, int64_t, int64_t, int64_t, float, int);
void expected_bin(const float *, const float *, float *, int64_t, int64_t, int);

/* Half a panel's row of `base`; beyond `width` anything. */
static inline __attribute__((always_inline)) vec addend(matrix base, int64_t row, int half, int64_t width)
{
    const float *from = base.at + row * base.row + half * LANES;
    const int64_t left = width - half * LANES;
    vec found = {0.0f};
    if (left >= LANES) return *(const vec *)from;
    memcpy(&found, from, (size_t)left * sizeof(float));
    return found;
}

/* A tile of out = base + x w: `rows` <= TILE rows of `depth` inputs, one panel of weights; base.at may be NULL. */
static inline __attribute__((always_inline)) void tile(const int rows, matrix x, const float *w, int64_t depth,
                                                       matrix base, float *out, int64_t stride, int64_t width)
{
    vec sums[TILE][2];
    for (int i = 0; i < rows; i++) sums[i][0] = sums[i][1] = (vec){0.0f};
    for (int64_t k = 0; k < depth; k++, w += PANEL) {
        const vec left = *(const vec *)w, right = *(const vec *)(w + LANES);
        for (int i = 0; i < rows; i++) {
            const float v = x.at[i * x.row + k * x.step];
            sums[i][0] += v * left;
            sums[i][1] += v * right;
        }
    }
    if (base.at)
        for (int i = 0; i < rows; i++)
            for (int half = 0; half < 2 && half * LANES < width; half++) sums[i][half] += addend(base, i, half, width);
    for (int i = 0; i < rows; i++, out += stride) {
        float row[PANEL];
        memcpy(row, sums[i], sizeof(row));
        if (width >= PANEL)
            memcpy(out, row, sizeof(row));
        else
            memcpy(out, row, (size_t)width * sizeof(float));
    }
}

/* out (rows, outputs) = base + x w; w: `depth` rows of panels that are `inputs` deep. */
static inline __attribute__((always_inline)) void product(matrix x, int64_t rows, const float *w, int64_t inputs,
                                                          int64_t depth, int64_t outputs, matrix base, float *out)
{
    for (int64_t j = 0; j < outputs; j += PANEL, w += PANEL * inputs) {
        const int64_t whole = rows / TILE * TILE, width = outputs - j;
        matrix from = x, to = base;
        float *end = out + j;
        for (int64_t i = 0; i < whole; i += TILE, end += TILE * outputs) {
            from.at = x.at + i * x.row;
            to.at = base.at ? base.at + i * base.row + j : NULL;
            tile(TILE, from, w, depth, to, end, outputs, width);
        }
        from.at = x.at + whole * x.row;
        to.at = base.at ? base.at + whole * base.row + j : NULL;
        switch (rows - whole) {
        case 5: tile(5, from, w, depth, to, end, outputs, width); break;
        case 4: tile(4, from, w, depth, to, end, outputs, width); break;
        case 3: tile(3, from, w, depth, to, end, outputs, width); break;
        case 2: tile(2, from, w, depth, to, end, outputs, width); break;
        case 1: tile(1, from, w, depth, to, end, outputs, width); break;
        default: break;
        }
    }
}

/* out (rows, outputs) = x (rows, inputs) w + base, row after row in memory; base: a bias, or `out` itself. */
static void linear(const float *x, int64_t rows, const float *w, int64_t inputs, int64_t outputs, matrix base, float *out)
{
    product((matrix){x, inputs, 1}, rows, w, inputs, inputs, outputs, base, out);
}

/* panels <- w (inputs, outputs), as `layer` has its weight. */
void pack(const float *w, int64_t row, int64_t step, int64_t inputs, int64_t outputs, float *panels, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t j = 0; j < outputs; j += PANEL) {
        float *to = panels + j * inputs;
        const float *from = w + j * step;
        const int64_t width = outputs - j < PANEL ? outputs - j : PANEL;
        if (width < PANEL) memset(to, 0, (size_t)(PANEL * inputs) * sizeof(float));
        if (step == 1)
            for (int64_t k = 0; k < inputs; k++) memcpy(to + k * PANEL, from + k * row, (size_t)width * sizeof(float));
        else
            for (int64_t first = 0; first < inputs; first += LANES)
                for (int64_t i = 0; i < width; i++)
                    for (int64_t k = first; k < inputs && k < first + LANES; k++)
                        to[k * PANEL + i] = from[k * row + i * step];
    }
}

/* Rows of a block: whole tiles, at most about BLOCK, as many blocks for every thread. */
static int64_t block_rows(int64_t rows, int threads)
{
    const int64_t share = (rows + threads - 1) / threads, parts = (share + BLOCK - 1) / BLOCK;
    return ((share + parts - 1) / parts + TILE - 1) / TILE * TILE;
}

/* out (rows, outputs) <- x (rows, inputs) w (inputs, outputs) + bias, or + out where `add`. `panels`: room for w. */
void matmul(const float *x, int64_t x_row, int64_t x_step, const float *w, int64_t w_row, int64_t w_step,
            const float *bias, float *panels, float *out, int64_t rows, int64_t inputs, int64_t outputs, int add,
            int threads)
{
    pack(w, w_row, w_step, inputs, outputs, panels, threads);
    const int64_t size = block_rows(rows, threads), blocks = (rows + size - 1) / size;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t begin = b * size, count = begin + size < rows ? size : rows - begin;
        float *to = out + begin * outputs;
        const matrix itself = {to, outputs, 1}, before = {bias, 0, 0};
        for (int64_t k = 0; k < inputs; k += DEPTH) {
            const int64_t depth = inputs - k < DEPTH ? inputs - k : DEPTH;
            const float *from = x + begin * x_row + k * x_step;
            const matrix base = add || k ? itself : before;
            if (x_step == 1)
                product((matrix){from, x_row, 1}, count, panels + k * PANEL, inputs, depth, outputs, base, to);
            else
                product((matrix){from, x_row, x_step}, count, panels + k * PANEL, inputs, depth, outputs, base, to);
        }
    }
}

/* Rows [begin, end) of `network`; scratch has room for twice these rows of the widest layer. */
static void block(const layer *layers, int64_t count, const float *z, int64_t repeat, const float *action,
                  const float *action_weight, int64_t actions, const float *added, int64_t begin, int64_t end,
                  int64_t widest, int64_t group, float eps, float *scratch, float *out)
{
    const int64_t width = layers[0].outputs, inputs = layers[0].inputs, rows = end - begin, first = begin / repeat;
    const matrix bias = {layers[0].bias, 0, 1};
    float *x = scratch, *y = scratch + rows * widest;
    if (repeat > 1) {
        linear(z + first * inputs, (end - 1) / repeat - first + 1, layers[0].weight, inputs, width, bias, y);
        for (int64_t i = 0; i < rows; i++)
            memcpy(x + i * width, y + ((begin + i) / repeat - first) * width, (size_t)width * sizeof(float));
    } else
        linear(z + begin * inputs, rows, layers[0].weight, inputs, width, bias, x);
    if (action) linear(action + begin * actions, rows, action_weight, actions, width, (matrix){x, width, 1}, x);
    const layer *last = layers + count - 1;
    out += begin * last->outputs;
    for (int64_t l = 1; l < count; l++) {
        const layer *before = layers + l - 1, *next = layers + l;
        float *result = l + 1 == count ? out : y;
        norm_mish(x, before->gain, before->shift, x, rows, before->outputs, eps, 1);
        linear(x, rows, next->weight, next->inputs, next->outputs, (matrix){next->bias, 0, 1}, result);
        y = x;
        x = result;
    }
    if (added) added += begin * last->outputs;
    if (last->gain) norm_simnorm(out, last->gain, last->shift, added, rows, last->outputs, group, eps, 1);
}

/* out (rows, outputs of the last layer) <- network of z (rows / repeat, L) and action (rows, A), or NULL. Hidden
   layers end in Mish(LayerNorm), the last one in SimNorm over groups of `group` where it has a gain; `added` (rows,
   outputs), or NULL, goes into that SimNorm. `action_weight`: panels of the first layer. `scratch`: room for twice the
   rows of the widest layer. */
void network(const layer *layers, int64_t count, const float *z, int64_t repeat, const float *action,
             const float *action_weight, int64_t actions, const float *added, int64_t rows, int64_t group, float eps,
             float *scratch, float *out, int threads)
{
    const int64_t size = block_rows(rows, threads), blocks = (rows + size - 1) / size;
    int64_t widest = 0;
    for (int64_t l = 0; l < count; l++) widest = layers[l].outputs > widest ? layers[l].outputs : widest;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t begin = b * size, end = begin + size < rows ? begin + size : rows;
        block(layers, count, z, repeat, action, action_weight, actions, added, begin, end, widest, group, eps,
              scratch + 2 * begin * widest, out);
    }
}

/* out (rows) <- value of two-hot logits (rows, count) over `bins`: symexp of the expected bin. */
void decode(const float *logits, const float *bins, float *out, int64_t rows, int64_t count, int threads)
{
    expected_bin(logits, bins, out, rows, count, threads);
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
