/* LeNet-5 on MNIST in C: images from IDX files, a network, momentum, and what it gets right.
 *
 *     cc lenet.c $(pkg-config --cflags --libs spool) -lm -o lenet
 *     ./lenet FOLDER [EPOCHS]
 *
 * FOLDER holds the four files of the dataset as it is published (yann.lecun.com/exdb/mnist,
 * uncompressed): train-images-idx3-ubyte, train-labels-idx1-ubyte and the t10k ones. The part of it
 * that Spool's Python package trains on is written there by
 *
 *     python -c "import spool.data; spool.data.save_mnist('FOLDER')"
 */
#include <math.h>
#include <spool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call)                                                                                  \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != SP_OK) goto out;                                                             \
    } while (0)

enum { BATCH = 32, LAYERS = 5 };
static const double RATE = 0.02, MOMENTUM = 0.9;

/* ---- data ----- */

typedef struct digits {
    sp_tensor *images, *labels; /* (n, 1, 28, 28) of float32 in [0, 1]; (n) of int64 */
    int64_t n;
} digits;

static uint32_t big_endian(const unsigned char *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* An IDX file of bytes: its sizes and, to be freed, its values; NULL when it is no such file. */
static unsigned char *read_idx(const char *folder, const char *name, int rank, int64_t *shape)
{
    char path[4096];
    unsigned char head[16], *values = NULL;
    size_t bytes = 1, head_bytes = 4 + 4 * (size_t)rank;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    bool good = file && fread(head, 1, head_bytes, file) == head_bytes &&
                big_endian(head) == 0x800u + (uint32_t)rank;
    for (int d = 0; good && d < rank; d++) {
        shape[d] = big_endian(head + 4 + 4 * d);
        good = shape[d] <= 1000000 && bytes < (size_t)1 << 30;
        bytes *= (size_t)shape[d];
    }
    if (good) values = malloc(bytes + 1);
    if (values && fread(values, 1, bytes, file) != bytes) free(values), values = NULL;
    if (!values) fprintf(stderr, "%s: not a readable IDX file of rank %d\n", path, rank);
    if (file) fclose(file);
    return values;
}

static sp_status make_digits(const unsigned char *pixels, const unsigned char *names, int64_t n,
                             digits *out)
{
    const int64_t shape[4] = {n, 1, 28, 28};
    sp_tensor *bytes = NULL, *floats = NULL, *labels = NULL;
    sp_status status;
    TRY(sp_from_data(pixels, SP_UINT8, 4, shape, &bytes));
    TRY(sp_cast(bytes, SP_FLOAT32, &floats));
    TRY(sp_div_scalar(floats, SP_INT(255), &out->images));
    TRY(sp_from_data(names, SP_UINT8, 1, &n, &labels));
    TRY(sp_cast(labels, SP_INT64, &out->labels));
    out->n = n;
out:
    sp_drop(&bytes), sp_drop(&floats), sp_drop(&labels);
    return status;
}

static bool load(const char *folder, const char *part, digits *out)
{
    char images[64], labels[64];
    int64_t shape[3] = {0}, n = 0;
    snprintf(images, sizeof images, "%s-images-idx3-ubyte", part);
    snprintf(labels, sizeof labels, "%s-labels-idx1-ubyte", part);
    unsigned char *pixels = read_idx(folder, images, 3, shape);
    unsigned char *names = read_idx(folder, labels, 1, &n);
    bool good = pixels && names && shape[0] == n && shape[1] == 28 && shape[2] == 28;
    if (pixels && names && !good) fprintf(stderr, "%s: images and labels differ\n", folder);
    if (good && make_digits(pixels, names, n, out) != SP_OK) {
        fprintf(stderr, "%s\n", sp_last_error());
        good = false;
    }
    free(pixels), free(names);
    return good;
}

/* ---- the network ----- */

typedef struct layer {
    sp_tensor *weight, *bias;
    sp_tensor *weight_speed, *bias_speed; /* what momentum remembers */
} layer;

/* A parameter, uniform in +-bound, and its speed of 0. */
static sp_status make_parameter(const int64_t *shape, int rank, double bound, sp_tensor **param,
                                sp_tensor **speed)
{
    const sp_uniform_opt range = {
        .size = sizeof range, .low = -bound, .has_high = true, .high = bound};
    sp_status status = sp_full(shape, rank, SP_FLOAT(0), NULL, speed);
    if (status == SP_OK) status = sp_full(shape, rank, SP_FLOAT(0), NULL, param);
    if (status == SP_OK) status = sp_uniform_(*param, &range);
    if (status == SP_OK) status = sp_set_requires_grad(*param, true);
    return status;
}

static sp_status make_network(layer net[LAYERS])
{
    static const int64_t shapes[LAYERS][4] = {
        {6, 1, 5, 5}, {16, 6, 5, 5}, {120, 400}, {84, 120}, {10, 84}};
    sp_status status = SP_OK;
    for (int i = 0; i < LAYERS && status == SP_OK; i++) {
        const int64_t *shape = shapes[i];
        int rank = shape[2] ? 4 : 2;
        double inputs = (double)(shape[1] * (rank == 4 ? shape[2] * shape[3] : 1));
        double bound = 1 / sqrt(inputs); /* as PyTorch's layers begin */
        TRY(make_parameter(shape, rank, bound, &net[i].weight, &net[i].weight_speed));
        TRY(make_parameter(shape, 1, bound, &net[i].bias, &net[i].bias_speed));
    }
out:
    return status;
}

/* x becomes maxpool(relu(conv(x))); the old x is dropped. */
static sp_status convolve(const layer *l, int64_t padding, sp_tensor **x)
{
    const int64_t two = 2;
    const sp_conv2d_opt conv = {.size = sizeof conv, .padding = &padding, .n_padding = 1};
    sp_tensor *sums = NULL, *rectified = NULL, *pooled = NULL;
    sp_status status;
    TRY(sp_conv2d(*x, l->weight, l->bias, &conv, &sums));
    TRY(sp_relu(sums, &rectified));
    TRY(sp_max_pool2d(rectified, &two, 1, NULL, &pooled));
    sp_drop(x);
    *x = sp_retain(pooled);
out:
    sp_drop(&sums), sp_drop(&rectified), sp_drop(&pooled);
    return status;
}

/* x becomes linear(x), rectified but for the last layer. */
static sp_status connect(const layer *l, bool last, sp_tensor **x)
{
    sp_tensor *sums = NULL, *rectified = NULL;
    sp_status status;
    TRY(sp_linear(*x, l->weight, l->bias, &sums));
    if (!last) TRY(sp_relu(sums, &rectified));
    sp_drop(x);
    *x = sp_retain(last ? sums : rectified);
out:
    sp_drop(&sums), sp_drop(&rectified);
    return status;
}

/* (n, 1, 28, 28) -> (n, 10) */
static sp_status classify(const layer net[LAYERS], const sp_tensor *images, sp_tensor **out)
{
    const sp_flatten_opt flat = {.size = sizeof flat, .start_dim = 1};
    sp_tensor *x = sp_retain(images), *features = NULL;
    sp_status status;
    TRY(convolve(&net[0], 2, &x));
    TRY(convolve(&net[1], 0, &x));
    TRY(sp_flatten(x, &flat, &features));
    for (int i = 2; i < LAYERS; i++) TRY(connect(&net[i], i == LAYERS - 1, &features));
    *out = sp_retain(features);
out:
    sp_drop(&x), sp_drop(&features);
    return status;
}

/* ---- training ----- */

/* speed = MOMENTUM * speed + gradient; parameter -= rate * speed. In place, and not recorded. */
static sp_status move(sp_tensor *param, sp_tensor *speed, double rate)
{
    sp_tensor *grad = NULL;
    sp_status status;
    TRY(sp_grad_get(param, &grad));
    TRY(sp_mul_scalar_(speed, SP_FLOAT(MOMENTUM)));
    TRY(sp_add_(speed, grad));
    TRY(sp_sub_alpha_(param, speed, SP_FLOAT(rate)));
    TRY(sp_grad_set(param, NULL));
out:
    sp_drop(&grad);
    return status;
}

static sp_status descend(layer net[LAYERS], double rate)
{
    sp_status status = SP_OK;
    bool was = sp_grad_mode(false);
    for (int i = 0; i < LAYERS && status == SP_OK; i++) {
        status = move(net[i].weight, net[i].weight_speed, rate);
        if (status == SP_OK) status = move(net[i].bias, net[i].bias_speed, rate);
    }
    sp_grad_mode(was);
    return status;
}

static sp_status step(layer net[LAYERS], const digits *d, const sp_tensor *places, double rate,
                      double *loss)
{
    sp_tensor *images = NULL, *labels = NULL, *scores = NULL, *error = NULL;
    sp_scalar value;
    sp_status status;
    TRY(sp_index_select(d->images, 0, places, &images));
    TRY(sp_index_select(d->labels, 0, places, &labels));
    TRY(classify(net, images, &scores));
    TRY(sp_cross_entropy(scores, labels, NULL, &error));
    TRY(sp_backward(error, NULL));
    TRY(descend(net, rate));
    TRY(sp_item(error, &value));
    *loss = value.v.f;
out:
    sp_drop(&images), sp_drop(&labels), sp_drop(&scores), sp_drop(&error);
    return status;
}

/* All training images once, in a new order; the mean of the losses. */
static sp_status epoch(layer net[LAYERS], const digits *d, double rate, double *mean)
{
    sp_tensor *noise = NULL, *order = NULL, *places = NULL;
    int64_t steps = d->n / BATCH;
    double loss;
    sp_status status;
    *mean = 0;
    TRY(sp_rand(&d->n, 1, NULL, &noise));
    TRY(sp_argsort(noise, NULL, &order));
    for (int64_t i = 0; i < steps; i++) {
        TRY(sp_slice(order, 0, i * BATCH, (i + 1) * BATCH, NULL, &places));
        TRY(step(net, d, places, rate, &loss));
        *mean += loss / (double)steps;
        sp_drop(&places);
    }
out:
    sp_drop(&noise), sp_drop(&order), sp_drop(&places);
    return status;
}

/* The share of the images whose largest score is their label's. */
static sp_status accuracy(const layer net[LAYERS], const digits *d, double *share)
{
    const sp_argmax_opt along = {.size = sizeof along, .has_dim = true, .dim = 1};
    const sp_mean_opt as_float = {.size = sizeof as_float, .has_dtype = true, .dtype = SP_FLOAT32};
    sp_tensor *scores = NULL, *found = NULL, *right = NULL, *mean = NULL;
    sp_scalar value;
    sp_status status;
    bool was = sp_grad_mode(false);
    TRY(classify(net, d->images, &scores));
    TRY(sp_argmax(scores, &along, &found));
    TRY(sp_eq(found, d->labels, &right));
    TRY(sp_mean(right, &as_float, &mean));
    TRY(sp_item(mean, &value));
    *share = value.v.f;
out:
    sp_grad_mode(was);
    sp_drop(&scores), sp_drop(&found), sp_drop(&right), sp_drop(&mean);
    return status;
}

int main(int argc, char **argv)
{
    digits train = {0}, test = {0};
    layer net[LAYERS] = {{0}};
    double loss, share = 0;
    int epochs = argc > 2 ? atoi(argv[2]) : 12;
    sp_status status = SP_OK;
    if (argc < 2 || epochs < 1) {
        fprintf(stderr, "usage: %s FOLDER [EPOCHS]\n", argv[0]);
        return 2;
    }
    if (!load(argv[1], "train", &train) || !load(argv[1], "t10k", &test)) return 2;
    sp_manual_seed(0);
    TRY(make_network(net));
    for (int i = 1; i <= epochs; i++) {
        double rate = 4 * i > 3 * epochs ? RATE / 10 : RATE; /* the last quarter settles */
        TRY(epoch(net, &train, rate, &loss));
        TRY(accuracy(net, &test, &share));
        printf("epoch %2d  loss %.4f  test accuracy %.2f %%\n", i, loss, 100 * share);
        fflush(stdout);
    }
out:
    if (status != SP_OK) fprintf(stderr, "%s: %s\n", sp_status_name(status), sp_last_error());
    for (int i = 0; i < LAYERS; i++) {
        sp_drop(&net[i].weight), sp_drop(&net[i].bias);
        sp_drop(&net[i].weight_speed), sp_drop(&net[i].bias_speed);
    }
    sp_drop(&train.images), sp_drop(&train.labels), sp_drop(&test.images), sp_drop(&test.labels);
    return status != SP_OK;
}
