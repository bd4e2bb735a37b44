/* Kernels of cumprod, linear_scan and prod for complex numbers. */
#ifndef SP_CPU_SCAN_COMPLEX_H
#define SP_CPU_SCAN_COMPLEX_H

#include "tensor/backend.h"

SP_MUST_USE sp_status sp__cpu_cumprod_complex(const sp_kargs *args);
SP_MUST_USE sp_status sp__cpu_linear_scan_complex(const sp_kargs *args);
SP_MUST_USE sp_status sp__cpu_prod_complex(const sp_kargs *args);

#endif
