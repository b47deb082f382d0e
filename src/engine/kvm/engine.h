/* SPDX-License-Identifier: Apache-2.0 */
/* The KVM engine. */
#ifndef ENGINE_KVM_ENGINE_H
#define ENGINE_KVM_ENGINE_H

#include "engine/engine.h"

extern const struct engine_ops engine_kvm;

#endif
