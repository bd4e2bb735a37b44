/* The functions of rows.h in one dtype, NAME(moments) and so on. Included by rows.c once for each,
 * with T naming it: a template, so without a guard.
 *
 * Loops without sums are plain: however the compiler makes vectors of them, an element's bits are
 * the same.
 */
#define JOIN_(a, b) a##_##b
#define JOIN(a, b)  JOIN_(a, b)
#define NAME(f)     JOIN(f, T)
#define E           JOIN(E, T)
#define V           JOIN(V, T)
#define N           JOIN(N, T)
#define LOAD        JOIN(load, T)
#define PAD         JOIN(pad, T)
#define STORE       JOIN(store, T)
#define STORE_SOME  JOIN(store_some, T)
#define SPLAT       JOIN(splat, T)
#define VECTORS     ((int)(SP_ROWS_LANES / N))

/* Lanes added in halves, as vectors while they fill some. */
ALWAYS_INLINE double NAME(total)(V *lanes)
{
    for (int half = VECTORS / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
#if VB > 32
    VECTOR(E, 32) half[2];
    memcpy(half, lanes, sizeof half);
    half[0] += half[1];
#define LANES half
#else
#define LANES lanes
#endif
#if VB > 16
    VECTOR(E, 16) quarter[2];
    memcpy(quarter, LANES, sizeof quarter);
    quarter[0] += quarter[1];
#undef LANES
#define LANES quarter
#endif
    E last[16 / sizeof(E)];
    memcpy(last, LANES, sizeof last);
#undef LANES
    if (sizeof(E) == 8) return last[0] + last[1];
    return (last[0] + last[2 % (16 / sizeof(E))]) + (last[1] + last[3 % (16 / sizeof(E))]);
}

/* Vector j of the last, incomplete SP_ROWS_LANES elements, n of them left; `none` where there are
 * no more. */
ALWAYS_INLINE V NAME(rest)(const E *p, int64_t n, int j, V none)
{
    typedef JOIN(M, T) M;
    int64_t left = n - (int64_t)j * N;
    if (left >= N) return LOAD(p + j * N);
    if (left <= 0) return none;
    M lane;
    for (int i = 0; i < N; i++) lane[i] = i;
    return SELECT(lane < (M){0} + (int)left, PAD(p + j * N, left), none);
}

/* ---- moments ----- */

ALWAYS_INLINE double NAME(block_sum)(const E *p, int64_t n)
{
    V sum[VECTORS];
    int64_t i = 0;
    for (int j = 0; j < VECTORS; j++) sum[j] = (V){0};
    for (; i + SP_ROWS_LANES <= n; i += SP_ROWS_LANES)
        for (int j = 0; j < VECTORS; j++) sum[j] += LOAD(p + i + j * N);
    for (int j = 0; i < n && j < VECTORS; j++) sum[j] += NAME(rest)(p + i, n - i, j, (V){0});
    return NAME(total)(sum);
}

ALWAYS_INLINE sp_moments NAME(block_moments)(const E *p, int64_t n)
{
    const double share = 1 / (double)n;
    E rough = (E)(NAME(block_sum)(p, n) * share);
    V mean = SPLAT(rough), sum[VECTORS], square[VECTORS];
    int64_t i = 0;
    for (int j = 0; j < VECTORS; j++) sum[j] = square[j] = (V){0};
    for (; i + SP_ROWS_LANES <= n; i += SP_ROWS_LANES) {
        for (int j = 0; j < VECTORS; j++) {
            V d = LOAD(p + i + j * N) - mean;
            sum[j] += d, square[j] += d * d;
        }
    }
    for (int j = 0; i < n && j < VECTORS; j++) {
        V d = NAME(rest)(p + i, n - i, j, mean) - mean;
        sum[j] += d, square[j] += d * d;
    }
    double off = NAME(total)(sum), m2 = NAME(total)(square) - off * (off * share);
    return (sp_moments){(double)n, rough + off * share, m2 < 0 ? 0 : m2};
}

static sp_moments NAME(moments)(const void *x, int64_t n)
{
    const E *p = x;
    if (n <= 0) return (sp_moments){0};
    sp_moments all = NAME(block_moments)(p, n < SP_ROWS_BLOCK ? n : SP_ROWS_BLOCK);
    for (int64_t i = SP_ROWS_BLOCK; i < n; i += SP_ROWS_BLOCK) {
        int64_t count = n - i < SP_ROWS_BLOCK ? n - i : SP_ROWS_BLOCK;
        all = sp__moments_join(all, NAME(block_moments)(p + i, count));
    }
    return all;
}

/* ---- one number for the whole row ----- */

static void NAME(sums)(const void *g_, const void *x_, int64_t n, double mean_, double sum[2])
{
    const E *g = g_, *x = x_;
    const V mean = SPLAT((E)mean_);
    sum[0] = sum[1] = 0;
    for (int64_t at = 0; at < n; at += SP_ROWS_BLOCK) {
        int64_t i = at, end = n - at < SP_ROWS_BLOCK ? n : at + SP_ROWS_BLOCK;
        V sg[VECTORS], sx[VECTORS];
        for (int j = 0; j < VECTORS; j++) sg[j] = sx[j] = (V){0};
        for (; i + SP_ROWS_LANES <= end; i += SP_ROWS_LANES) {
            for (int j = 0; j < VECTORS; j++) {
                V v = LOAD(g + i + j * N);
                sg[j] += v, sx[j] += v * (LOAD(x + i + j * N) - mean);
            }
        }
        for (int j = 0; i < end && j < VECTORS; j++) {
            V v = NAME(rest)(g + i, end - i, j, (V){0});
            sg[j] += v, sx[j] += v * (NAME(rest)(x + i, end - i, j, mean) - mean);
        }
        sum[0] += NAME(total)(sg), sum[1] += NAME(total)(sx);
    }
}

static void NAME(apply)(void *y_, const void *x_, int64_t n, double mean_, double scale_,
                        double shift_)
{
    E *y = y_;
    const E *x = x_, mean = (E)mean_, scale = (E)scale_, shift = (E)shift_;
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * scale + shift;
}

static void NAME(back)(void *gx_, const void *gy_, const void *x_, int64_t n, double mean_,
                       const double *abc)
{
    E *gx = gx_;
    const E *gy = gy_, *x = x_, mean = (E)mean_, a = (E)abc[0], b = (E)abc[1], c = (E)abc[2];
    for (int64_t i = 0; i < n; i++) gx[i] = a * gy[i] + (b * (x[i] - mean) + c);
}

/* ---- weights along the row ----- */

static void NAME(apply_each)(void *y_, const void *x_, int64_t n, double mean_, double rstd_,
                             const void *weight, const void *bias)
{
    E *y = y_;
    const E *x = x_, *w = weight, *b = bias, mean = (E)mean_, rstd = (E)rstd_;
    if (w && b)
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * w[i] + b[i];
    else if (w)
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * w[i];
    else if (b)
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd + b[i];
    else
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd;
}

static void NAME(sums_each)(const void *gy_, const void *x_, const void *weight, int64_t n,
                            double mean_, double rstd_, void *gw_, void *gb_, double sum[2])
{
    const E *gy = gy_, *x = x_, *w = weight, mean = (E)mean_, rstd = (E)rstd_;
    E *restrict gw = gw_, *restrict gb = gb_;
    const V one = SPLAT(1), means = SPLAT(mean), rstds = SPLAT(rstd), none = {0};
    sum[0] = sum[1] = 0;
    for (int64_t at = 0; at < n; at += SP_ROWS_BLOCK) {
        int64_t i = at, end = n - at < SP_ROWS_BLOCK ? n : at + SP_ROWS_BLOCK;
        V sg[VECTORS], sz[VECTORS];
        for (int j = 0; j < VECTORS; j++) sg[j] = sz[j] = none;
        for (; i + SP_ROWS_LANES <= end; i += SP_ROWS_LANES) {
            for (int j = 0; j < VECTORS; j++) {
                V g = LOAD(gy + i + j * N) * (w ? LOAD(w + i + j * N) : one);
                sg[j] += g, sz[j] += g * ((LOAD(x + i + j * N) - means) * rstds);
            }
        }
        for (int j = 0; i < end && j < VECTORS; j++) {
            V g = NAME(rest)(gy + i, end - i, j, none);
            if (w) g *= NAME(rest)(w + i, end - i, j, none);
            sg[j] += g, sz[j] += g * ((NAME(rest)(x + i, end - i, j, means) - means) * rstds);
        }
        sum[0] += NAME(total)(sg), sum[1] += NAME(total)(sz);
        for (i = at; gb && i < end; i++) gw[i] += gy[i] * ((x[i] - mean) * rstd), gb[i] += gy[i];
        for (i = at; !gb && i < end; i++) gw[i] += gy[i] * ((x[i] - mean) * rstd);
    }
}

static void NAME(back_each)(void *gx_, const void *gy_, const void *x_, const void *weight,
                            int64_t n, double mean_, double rstd_, double a_, double b_)
{
    E *restrict gx = gx_;
    const E *gy = gy_, *x = x_, *w = weight;
    const E mean = (E)mean_, rstd = (E)rstd_, a = (E)a_, b = (E)b_;
    if (w)
        for (int64_t i = 0; i < n; i++)
            gx[i] = (gy[i] * w[i] - a - (x[i] - mean) * rstd * b) * rstd;
    else
        for (int64_t i = 0; i < n; i++) gx[i] = (gy[i] - a - (x[i] - mean) * rstd * b) * rstd;
}

/* ---- columns ----- */

static void NAME(moments_columns)(const void *x_, int64_t rows, int64_t stride, int64_t n,
                                  sp_moments *out)
{
    enum { BLOCK = 32 };
    const E *x = x_;
    for (int64_t j = 0; j < n; j++) out[j] = (sp_moments){0};
    for (int64_t at = 0; at < rows; at += BLOCK, x += BLOCK * stride) {
        int64_t count = rows - at < BLOCK ? rows - at : BLOCK;
        E mean[SP_ROWS_COLUMNS], sum[SP_ROWS_COLUMNS] = {0}, square[SP_ROWS_COLUMNS] = {0};
        for (int64_t r = 0; r < count; r++)
            for (int64_t j = 0; j < n; j++) sum[j] += x[r * stride + j];
        for (int64_t j = 0; j < n; j++) mean[j] = sum[j] / (E)count, sum[j] = 0;
        for (int64_t r = 0; r < count; r++) {
            for (int64_t j = 0; j < n; j++) {
                E d = x[r * stride + j] - mean[j];
                sum[j] += d, square[j] += d * d;
            }
        }
        for (int64_t j = 0; j < n; j++) {
            double off = sum[j], m2 = square[j] - off * (off / (double)count);
            sp_moments block = {(double)count, mean[j] + off / (double)count, m2 < 0 ? 0 : m2};
            out[j] = sp__moments_join(out[j], block);
        }
    }
}

static void NAME(sums_columns)(const void *g_, const void *x_, int64_t rows, int64_t stride,
                               int64_t n, const double *mean_, double *sum_g, double *sum_gx)
{
    enum { BLOCK = 32 };
    const E *g = g_, *x = x_;
    E mean[SP_ROWS_COLUMNS];
    for (int64_t j = 0; j < n; j++) mean[j] = (E)mean_[j], sum_g[j] = sum_gx[j] = 0;
    for (int64_t at = 0; at < rows; at += BLOCK, x += BLOCK * stride, g += BLOCK * stride) {
        int64_t count = rows - at < BLOCK ? rows - at : BLOCK;
        E sg[SP_ROWS_COLUMNS] = {0}, sx[SP_ROWS_COLUMNS] = {0};
        for (int64_t r = 0; r < count; r++) {
            for (int64_t j = 0; j < n; j++) {
                E v = g[r * stride + j];
                sg[j] += v, sx[j] += v * (x[r * stride + j] - mean[j]);
            }
        }
        for (int64_t j = 0; j < n; j++) sum_g[j] += sg[j], sum_gx[j] += sx[j];
    }
}

static void NAME(apply_columns)(void *y_, const void *x_, int64_t rows, int64_t stride, int64_t n,
                                const double *mean_, const double *scale_, const double *shift_)
{
    E *restrict y = y_, mean[SP_ROWS_COLUMNS], scale[SP_ROWS_COLUMNS], shift[SP_ROWS_COLUMNS];
    const E *x = x_;
    for (int64_t j = 0; j < n; j++)
        mean[j] = (E)mean_[j], scale[j] = (E)scale_[j], shift[j] = (E)shift_[j];
    for (int64_t r = 0; r < rows; r++, y += stride, x += stride)
        for (int64_t j = 0; j < n; j++) y[j] = (x[j] - mean[j]) * scale[j] + shift[j];
}

static void NAME(back_columns)(void *gx_, const void *gy_, const void *x_, int64_t rows,
                               int64_t stride, int64_t n, const double *mean_,
                               const double *const abc[3])
{
    E *restrict gx = gx_, mean[SP_ROWS_COLUMNS], a[SP_ROWS_COLUMNS], b[SP_ROWS_COLUMNS],
                c[SP_ROWS_COLUMNS];
    const E *gy = gy_, *x = x_;
    for (int64_t j = 0; j < n; j++)
        mean[j] = (E)mean_[j], a[j] = (E)abc[0][j], b[j] = (E)abc[1][j], c[j] = (E)abc[2][j];
    for (int64_t r = 0; r < rows; r++, gx += stride, gy += stride, x += stride)
        for (int64_t j = 0; j < n; j++) gx[j] = a[j] * gy[j] + (b[j] * (x[j] - mean[j]) + c[j]);
}

/* ---- exponentials ----- */

static double NAME(max)(const void *x_, int64_t n)
{
    typedef JOIN(M, T) M;
    const E *x = x_;
    const V none = SPLAT((E)-__builtin_inf());
    V max[VECTORS];
    E lanes[SP_ROWS_LANES];
    int64_t i = 0;
    for (int j = 0; j < VECTORS; j++) max[j] = none;
    for (; i + SP_ROWS_LANES <= n; i += SP_ROWS_LANES) {
        for (int j = 0; j < VECTORS; j++) {
            V v = LOAD(x + i + j * N);
            max[j] = SELECT((v > max[j]) | (v != v), v, max[j]);
        }
    }
    for (int j = 0; i < n && j < VECTORS; j++) {
        V v = NAME(rest)(x + i, n - i, j, none);
        max[j] = SELECT((v > max[j]) | (v != v), v, max[j]);
    }
    for (int half = VECTORS / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) {
            V v = max[j + half];
            max[j] = SELECT((v > max[j]) | (v != v), v, max[j]);
        }
    memcpy(lanes, max, sizeof max[0]);
    for (int j = 1; j < N; j++)
        if (lanes[j] > lanes[0] || lanes[j] != lanes[j]) lanes[0] = lanes[j];
    return lanes[0];
}

static double NAME(exps)(void *y_, const void *x_, int64_t n, double shift_)
{
    E *y = y_;
    const E *x = x_;
    const V shift = SPLAT((E)shift_), none = SPLAT((E)-__builtin_inf());
    double all = 0;
    for (int64_t at = 0; at < n; at += SP_ROWS_BLOCK) {
        int64_t i = at, end = n - at < SP_ROWS_BLOCK ? n : at + SP_ROWS_BLOCK;
        V sum[VECTORS];
        for (int j = 0; j < VECTORS; j++) sum[j] = (V){0};
        for (; i + SP_ROWS_LANES <= end; i += SP_ROWS_LANES) {
            for (int j = 0; j < VECTORS; j++) {
                V v = NAME(exp_down)(LOAD(x + i + j * N) - shift);
                if (y) STORE(y + i + j * N, v);
                sum[j] += v;
            }
        }
        for (int j = 0; i + j * N < end && j < VECTORS; j++) {
            int64_t left = end - i - j * N;
            V v = NAME(exp_down)(NAME(rest)(x + i, end - i, j, none) - shift);
            if (y && left >= N) STORE(y + i + j * N, v);
            if (y && left < N) STORE_SOME(y + i + j * N, v, left);
            sum[j] += v;
        }
        all += NAME(total)(sum);
    }
    return all;
}

static void NAME(scale)(void *y_, const void *x_, int64_t n, double scale_)
{
    E *y = y_;
    const E *x = x_, scale = (E)scale_;
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale;
}

static void NAME(less)(void *y_, const void *x_, int64_t n, double a_, double b_)
{
    E *y = y_;
    const E *x = x_, a = (E)a_, b = (E)b_;
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - a) - b;
}

static void NAME(add)(void *y_, const void *x_, int64_t n)
{
    E *y = y_;
    const E *x = x_;
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

static void NAME(hide)(void *y_, const void *keep_, int64_t n)
{
    E *y = y_;
    const uint8_t *keep = keep_;
    for (int64_t i = 0; i < n; i++) y[i] = keep[i] ? y[i] : (E)-__builtin_inf();
}

static void NAME(softmax_back)(void *gx_, const void *g_, const void *y_, int64_t n, double sum_)
{
    E *gx = gx_;
    const E *g = g_, *y = y_, sum = (E)sum_;
    for (int64_t i = 0; i < n; i++) gx[i] = y[i] * (g[i] - sum);
}

static void NAME(log_softmax_back)(void *gx_, const void *g_, const void *y_, int64_t n,
                                   double sum_)
{
    E *gx = gx_;
    const E *g = g_, *y = y_;
    const V sum = SPLAT((E)sum_);
    int64_t i = 0;
    for (; i + N <= n; i += N) STORE(gx + i, LOAD(g + i) - NAME(exp_down)(LOAD(y + i)) * sum);
    if (i < n)
        STORE_SOME(gx + i, PAD(g + i, n - i) - NAME(exp_down)(PAD(y + i, n - i)) * sum, n - i);
}

#define ROWS_FUNCTIONS                                                                             \
    {                                                                                              \
        .moments = NAME(moments), .sums = NAME(sums), .apply = NAME(apply), .back = NAME(back),    \
        .apply_each = NAME(apply_each), .sums_each = NAME(sums_each),                              \
        .back_each = NAME(back_each), .moments_columns = NAME(moments_columns),                    \
        .sums_columns = NAME(sums_columns), .apply_columns = NAME(apply_columns),                  \
        .back_columns = NAME(back_columns), .max = NAME(max), .exps = NAME(exps),                  \
        .scale = NAME(scale), .less = NAME(less), .add = NAME(add), .hide = NAME(hide),            \
        .softmax_back = NAME(softmax_back), .log_softmax_back = NAME(log_softmax_back)             \
    }
static const sp_rows NAME(rows) = ROWS_FUNCTIONS;

#undef ROWS_FUNCTIONS
#undef JOIN_
#undef JOIN
#undef NAME
#undef E
#undef V
#undef N
#undef LOAD
#undef PAD
#undef STORE
#undef STORE_SOME
#undef SPLAT
#undef VECTORS
