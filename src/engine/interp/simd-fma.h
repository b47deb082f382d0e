/* SPDX-License-Identifier: Apache-2.0 */
/* x * y + z rounded once, without the host's FMA unit; between fp_enter and fp_leave. */
#ifndef ENGINE_INTERP_SIMD_FMA_H
#define ENGINE_INTERP_SIMD_FMA_H

float fma_soft_f32(float x, float y, float z);
double fma_soft_f64(double x, double y, double z);

#endif
