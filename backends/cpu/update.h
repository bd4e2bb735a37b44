/* The numbers that a step of an optimizer takes, the same for all elements.
 */
#ifndef SP_CPU_UPDATE_H
#define SP_CPU_UPDATE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct sp_update {
    double lr;                     /* with the corrections for means that start at zero */
    double lr_grad;                /* of the gradient itself, beside its mean's */
    double weight_decay;           /* added to the gradient, times the parameter */
    double shrink;                 /* the parameter is multiplied with it first */
    double keep, keep_square, eps; /* how much of means, and of mean squares, is kept */
    double root_scale;             /* a root is multiplied with it */
    double momentum, dampening;
    bool maximize, nesterov, first;
    bool rootless; /* the mean is divided by nothing */
} sp_update;

#define SP_UPDATE(kind, step, n_states) kind,
typedef enum sp_update_kind {
#include "backends/cpu/update_kinds.h"
    SP_UPDATE_KINDS
} sp_update_kind;

/* One step over n dense elements: in holds the states, then the gradient; out the new states, each
 * where its old one is or apart from all inputs. */
typedef void (*sp_update_fn)(char *const *out, const char *const *in, int64_t n,
                             const sp_update *u);

struct sp_kargs;
double sp__update_predict_us(const struct sp_kargs *args);

#endif
