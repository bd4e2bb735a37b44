/* What a kernel will cost.
 */
#ifndef SP_CPU_PREDICT_H
#define SP_CPU_PREDICT_H

#include "tensor/backend.h"

/* Microseconds of one thread, about: within a factor of two for anything above 50. Cheap. */
double sp__cpu_predict_us(const sp_kargs *args);

#endif
