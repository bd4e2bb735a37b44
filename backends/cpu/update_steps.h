/* What the steps of optimizers do to a vector of elements, in one dtype.
 *
 * Included by update_lanes.h once a dtype, with T naming it. A step gets the states (the parameter
 * first) in s and the gradient in g, and leaves the new states in s. Every operation stands for
 * itself, nothing is contracted, so that any instruction set gives the same bits.
 */
#define V            JOIN(V_, T)
#define M            JOIN(M_, T)
#define NAME(fn)     JOIN(fn##_, T)
#define SPLAT(x)     JOIN(splat_, T)((JOIN(E_, T))(x))
#define LARGER(a, b) SELECT(((a) > (b)) | ((a) != (a)), a, b) /* NaN stays */

/* The gradient to follow. */
ALWAYS_INLINE V NAME(slope)(V param, V g, const sp_update *u)
{
    if (u->maximize) g = -g;
    return u->weight_decay != 0 ? g + SPLAT(u->weight_decay) * param : g;
}

/* mean + (1 - keep) (g - mean) */
ALWAYS_INLINE V NAME(mean)(V mean, V g, double keep)
{
    return mean + SPLAT(1 - keep) * (g - mean);
}

/* keep s + (1 - keep) g g */
ALWAYS_INLINE V NAME(mean_square)(V s, V g, double keep)
{
    return SPLAT(keep) * s + SPLAT(1 - keep) * (g * g);
}

ALWAYS_INLINE void NAME(sgd)(V *s, V g, const sp_update *u)
{
    s[0] -= SPLAT(u->lr) * NAME(slope)(s[0], g, u);
}

ALWAYS_INLINE void NAME(sgd_momentum)(V *s, V g, const sp_update *u)
{
    g = NAME(slope)(s[0], g, u);
    s[1] = u->first ? g : SPLAT(u->momentum) * s[1] + SPLAT(1 - u->dampening) * g;
    g = u->nesterov ? g + SPLAT(u->momentum) * s[1] : s[1];
    s[0] -= SPLAT(u->lr) * g;
}

/* square: what stands under the root */
ALWAYS_INLINE void NAME(adam_move)(V *s, V square, const sp_update *u)
{
    V root = SQRT(square) * SPLAT(u->root_scale) + SPLAT(u->eps);
    s[0] -= SPLAT(u->lr) * (s[1] / root);
}

ALWAYS_INLINE void NAME(adam_means)(V *s, V g, const sp_update *u)
{
    g = NAME(slope)(s[0], g, u);
    if (u->shrink != 1) s[0] *= SPLAT(u->shrink);
    s[1] = NAME(mean)(s[1], g, u->keep);
    s[2] = NAME(mean_square)(s[2], g, u->keep_square);
}

ALWAYS_INLINE void NAME(adam)(V *s, V g, const sp_update *u)
{
    NAME(adam_means)(s, g, u);
    NAME(adam_move)(s, s[2], u);
}

ALWAYS_INLINE void NAME(adam_amsgrad)(V *s, V g, const sp_update *u)
{
    NAME(adam_means)(s, g, u);
    s[3] = LARGER(s[3], s[2]);
    NAME(adam_move)(s, s[3], u);
}

ALWAYS_INLINE void NAME(rmsprop)(V *s, V g, const sp_update *u)
{
    g = NAME(slope)(s[0], g, u);
    s[1] = NAME(mean_square)(s[1], g, u->keep_square);
    s[0] -= SPLAT(u->lr) * (g / (SQRT(s[1]) + SPLAT(u->eps)));
}

ALWAYS_INLINE void NAME(rmsprop_momentum)(V *s, V g, const sp_update *u)
{
    g = NAME(slope)(s[0], g, u);
    s[1] = NAME(mean_square)(s[1], g, u->keep_square);
    s[2] = SPLAT(u->momentum) * s[2] + g / (SQRT(s[1]) + SPLAT(u->eps));
    s[0] -= SPLAT(u->lr) * s[2];
}

ALWAYS_INLINE V NAME(rmsprop_centre)(V *s, V g, const sp_update *u)
{
    s[1] = NAME(mean_square)(s[1], g, u->keep_square);
    s[2] = NAME(mean)(s[2], g, u->keep_square);
    return g / (SQRT(s[1] - s[2] * s[2]) + SPLAT(u->eps));
}

ALWAYS_INLINE void NAME(rmsprop_centered)(V *s, V g, const sp_update *u)
{
    V change = NAME(rmsprop_centre)(s, NAME(slope)(s[0], g, u), u);
    s[0] -= SPLAT(u->lr) * change;
}

ALWAYS_INLINE void NAME(rmsprop_centered_momentum)(V *s, V g, const sp_update *u)
{
    V change = NAME(rmsprop_centre)(s, NAME(slope)(s[0], g, u), u);
    s[3] = SPLAT(u->momentum) * s[3] + change;
    s[0] -= SPLAT(u->lr) * s[3];
}

ALWAYS_INLINE void NAME(adagrad)(V *s, V g, const sp_update *u)
{
    g = NAME(slope)(s[0], g, u);
    s[1] += g * g;
    s[0] -= SPLAT(u->lr) * (g / (SQRT(s[1]) + SPLAT(u->eps)));
}

ALWAYS_INLINE void NAME(adamax)(V *s, V g, const sp_update *u)
{
    g = NAME(slope)(s[0], g, u);
    s[1] = NAME(mean)(s[1], g, u->keep);
    V kept = SPLAT(u->keep_square) * s[2], size = ABS(g) + SPLAT(u->eps);
    s[2] = LARGER(kept, size);
    s[0] -= SPLAT(u->lr) * (s[1] / s[2]);
}

ALWAYS_INLINE void NAME(nadam)(V *s, V g, const sp_update *u)
{
    V slope = NAME(slope)(s[0], g, u);
    NAME(adam_means)(s, g, u);
    V root = SQRT(s[2]) * SPLAT(u->root_scale) + SPLAT(u->eps);
    s[0] -= (SPLAT(u->lr) * s[1] + SPLAT(u->lr_grad) * slope) / root;
}

ALWAYS_INLINE void NAME(radam)(V *s, V g, const sp_update *u)
{
    NAME(adam_means)(s, g, u);
    s[0] -= SPLAT(u->lr) * (u->rootless ? s[1] : s[1] / (SQRT(s[2]) + SPLAT(u->eps)));
}

ALWAYS_INLINE void NAME(adadelta)(V *s, V g, const sp_update *u)
{
    g = NAME(slope)(s[0], g, u);
    s[1] = NAME(mean_square)(s[1], g, u->keep_square);
    V change = SQRT(s[2] + SPLAT(u->eps)) / SQRT(s[1] + SPLAT(u->eps)) * g;
    s[2] = NAME(mean_square)(s[2], change, u->keep_square);
    s[0] -= SPLAT(u->lr) * change;
}

#undef V
#undef M
#undef NAME
#undef SPLAT
#undef LARGER
