/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stub for the GNU debugger: `target remote ADDR:PORT`. The machine starts paused; each CPU is a thread, number 1
 * being CPU 0. Whoever reaches the port owns the machine, so it is loopback unless told otherwise.
 */
#ifndef VM_GDB_H
#define VM_GDB_H

#include "vm/vm.h"

/*
 * where: "[ADDR:]PORT", an IPv6 address in brackets; port 0 takes a free one, see gdb_port(). Before vm_start. The
 * vm owns the stub and ends it in vm_destroy.
 */
int gdb_start(struct vm *vm, const char *where, struct err *e);
int gdb_port(const struct vm *vm); /* 0: no stub */

#endif
