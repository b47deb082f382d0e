/* SPDX-License-Identifier: Apache-2.0 */
/* PS/2 keyboard controller with keyboard and mouse (with a wheel). */
#ifndef DEV_I8042_H
#define DEV_I8042_H

#include "dev/device.h"

struct power_ops;

/* irq: of the keyboard (1) and of the mouse (12). */
struct device *i8042_create(struct device_env *env, struct irq_line keyboard, struct irq_line mouse,
			    const struct power_ops *power, struct err *e);
/*
 * Input from a person; any thread. keycode: KEY_* of <linux/input-event-codes.h>. What the guest does not take in time is lost
 * (keys) or added up (motion). True: taken.
 */
bool i8042_key(struct device *d, unsigned keycode, bool down);
/*
 * All of these or none: 0, -EAGAIN (the guest has not taken those before), -ENODEV (the guest has switched the keyboard
 * off), -EINVAL (it has no such key), -E2BIG (more than it ever holds).
 */
int i8042_keys(struct device *d, const struct key_event *stroke, unsigned n);
/* Motion, right and down positive; wheel: towards the person positive. buttons: 1 left, 2 right, 4 middle. */
void i8042_mouse(struct device *d, int dx, int dy, int wheel, unsigned buttons);
/* The guest's keyboard lights: 1 scroll, 2 num, 4 caps. */
unsigned i8042_lights(struct device *d);

#endif
