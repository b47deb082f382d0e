/* SPDX-License-Identifier: Apache-2.0 */
/* Between vm.c and vcpu.c. */
#ifndef VM_PRIVATE_H
#define VM_PRIVATE_H

#include "vm/vm.h"

/* Wait on the vCPU's own thread as long as something wants it to; false: the thread is to end. */
bool vm_park(struct vcpu *v);
void vm_debug_stop(struct vcpu *v);
void vm_vcpu_ready(struct vcpu *v, const struct err *e); /* e: cannot run */

/* Would this engine run the guest by hardware? Measured once. */
bool vm_accelerated(struct vm *vm, const struct engine_ops *engine);

/* exchange.c; lock held, given up meanwhile. True if this thread had a step to do. */
bool exchange_attend(struct vcpu *v);

#endif
